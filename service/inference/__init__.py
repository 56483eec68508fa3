"""From an uploaded image to an answer: decoding, preprocessing as in training, prediction."""
