"""Recurrent networks that trace contours: hGRU, hCNN and td+hCNN, a ConvLSTM, and a feed-forward control."""
