"""Short fine-tuning: low-rank updates learnt on an edited model, with peft."""
