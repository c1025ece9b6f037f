// Keeps what happens now young, and lets the arrow keys go from image to image. The page works without.
"use strict";

const EVERY_MS = 2000;
const live = document.getElementById("live");

async function renew() {
  if (document.hidden) return;
  try {
    const answer = await fetch(live.dataset.from, { cache: "no-store", redirect: "error" });
    if (!answer.ok) throw new Error(answer.statusText);
    const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
    live.replaceChildren(...parsed.body.childNodes);
  } catch {
    const said = document.createElement("p");
    said.className = "alert";
    said.textContent = "tciafs status --web has ended; what is below was so at its end.";
    if (!live.querySelector(".alert")) live.prepend(said);
  }
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const way = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (way) document.querySelector(`figure a[rel=${way}]`)?.click();
});

setInterval(renew, EVERY_MS);
