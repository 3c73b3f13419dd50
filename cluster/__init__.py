"""Where emollm runs when it outgrows a machine: image, manifests, checks. Starts things; nothing here is imported."""
