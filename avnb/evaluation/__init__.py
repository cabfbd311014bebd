"""What was learnt. Each module imports only from those above it:

| class_names:    class lists of five data sets
| features:       the encoders to evaluate, by name, and their features, encoded once
| results:        result rows and their intervals
| comparison:     paired tests of claims and of checkpoints
| probe:          linear probes
| few_shot:       few-shot probes on seen and unseen classes
| fine_tuning:    fine-tuned classifiers on test videos
| concepts:       seen concepts: test classes that pre-training knows by name
| retrieval:      nearest neighbours within and across modalities
| localisation:   where in the frame the video resembles the audio
"""
