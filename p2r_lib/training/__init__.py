"""SFT, video GRPO and process-aware GRPO, on TRL's trainers."""
