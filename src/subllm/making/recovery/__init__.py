"""Recovery of a pruned model: its kept weights learn the dense base's logits, the mask fixed."""
