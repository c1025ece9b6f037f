"""What of an archive a mount shows: criteria, manifests and carts, and the listings that are left."""
