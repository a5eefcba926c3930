"""Bilinear enlarging and reflection padding with gradients summed in a fixed order.

On a GPU, torch's own versions add gradients in varying order, so the last digits differ between
runs. These give the same values up to rounding, at the cost of more memory and time.
Legend: B batch, C channels, H W rows and columns before, R S rows and columns after.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FixedOrderUpsample(nn.Module):
    """Bilinear enlarging of maps of one size, as two matrix products in float32."""

    rows: Tensor  # (R, H), what every row before counts in a row after
    columns: Tensor  # (W, S)

    def __init__(
        self, before: tuple[int, int], after: tuple[int, int], *, align_corners: bool
    ) -> None:
        super().__init__()
        for name, n, m in zip(("rows", "columns"), before, after, strict=True):
            shares = functional.interpolate(
                torch.eye(n)[None], size=m, mode="linear", align_corners=align_corners
            )[0]  # (n, m)
            matrix = shares.T.contiguous() if name == "rows" else shares
            self.register_buffer(name, matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) as float32 (B, C, R, S)."""
        with torch.autocast(x.device.type, enabled=False):
            return self.rows @ x.float() @ self.columns


class FixedOrderReflectionPad(nn.Module):
    """`margin` rows and columns on every side, as a mirror at the outermost shows them."""

    def __init__(self, margin: int) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) as (B, C, H + 2 * margin, W + 2 * margin)."""
        for dim in (2, 3):
            first = x.narrow(dim, 1, self.margin).flip(dim)
            last = x.narrow(dim, x.shape[dim] - 1 - self.margin, self.margin).flip(dim)
            x = torch.cat([first, x, last], dim)
        return x


def sample_in_fixed_order(picture: Tensor, places: Tensor) -> Tensor:
    """Bilinear samples of (B, C, H, W) at positions (B, 2, T, T): (B, C, T, T).

    Positions are columns and rows in -1 ... 1, from edge to edge; outside, the edge continues. The
    picture gets no gradient.
    """
    rows, columns = picture.shape[2:]
    x = ((places[:, 0] + 1) * (columns / 2) - 0.5).clamp(0, columns - 1).flatten(1)  # (B, T * T)
    y = ((places[:, 1] + 1) * (rows / 2) - 0.5).clamp(0, rows - 1).flatten(1)
    left = x.detach().floor().clamp(max=columns - 2)
    top = y.detach().floor().clamp(max=rows - 2)
    first = (top * columns + left).long()[:, None].expand(-1, picture.shape[1], -1)
    pixels = picture.detach().flatten(2)  # (B, C, H * W)
    corners = [pixels.gather(2, first + step) for step in (0, 1, columns, columns + 1)]
    across, down = (x - left)[:, None], (y - top)[:, None]
    above = torch.lerp(corners[0], corners[1], across)
    below = torch.lerp(corners[2], corners[3], across)
    return torch.lerp(above, below, down).view(*picture.shape[:2], *places.shape[2:])
