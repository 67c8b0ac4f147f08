"""Inference as the release does it (section 5), written plainly: the yardstick of `inference.vs_release`.

One window after another, float32, batch norm as layers, resizing on the CPU, and a copy of the whole map a window.
"""

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@torch.no_grad()
def score_windows(net: nn.Module, image: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """RGB uint8 (H, W, 3) and boxes (N, 4) → the maximum of the windows' scores over a zero base, (21, H, W)."""
    height, width = image.shape[:2]
    margin = max(0, *(-windows[:, :2]).max(axis=0), *(windows[:, 2:] - (width, height)).max(axis=0))
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    total = np.zeros((net.score.out_channels, height + 2 * margin, width + 2 * margin), np.float32)
    device = next(net.parameters()).device
    for x1, y1, x2, y2 in windows + margin:
        cut = cv2.resize(padded[y1:y2, x1:x2], (net.size, net.size), interpolation=cv2.INTER_LINEAR)
        scores = net(torch.from_numpy(cut).permute(2, 0, 1)[None].float().contiguous().to(device))
        scores = F.interpolate(scores.cpu(), (int(y2 - y1), int(x2 - x1)), mode="bilinear", align_corners=False)[0]
        whole = np.zeros_like(total)
        whole[:, y1:y2, x1:x2] = scores
        total = np.maximum(total, whole)
    return total[:, margin : margin + height, margin : margin + width]
