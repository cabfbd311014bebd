"""What was learnt. Each module imports only from those above it:

class_names     class lists of five data sets
encoder_source  the encoders to evaluate, by name
feature_store   arrays on disk that are filled row by row
features        features of frozen encoders, extracted once
soundtracks     audio features of whole soundtracks
results         result rows and their intervals
probe_features  clips and features that linear probes are trained and tested on
probe           linear probes
probe_choices   probes under each choice of the released code
batched_probes  many linear probes trained as one batched problem
text_encoders   text encoders by name
rankings        the published ranking of the second text encoder
concepts        seen concepts: test classes that pre-training knows by name
splits          seen and unseen classes, few-shot draws, as files
class_splits    how the classes of a test set are divided into seen and unseen ones
few_shot        few-shot probes on seen and unseen classes
finetuned       fine-tuned classifiers on test videos
search          the nearest rows of a gallery, and the ranks of right ones
retrieval       nearest neighbours within and across modalities
alignment       how video and audio lie to each other in a space
localisation    where in the frame the video resembles the audio
galleries       random queries with their nearest videos
exploration     a retrieval to be asked questions
embedding_maps  embeddings as points of a plane
studies         the thesis's explanations as experiments: many short runs
"""
