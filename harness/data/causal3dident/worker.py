"""Draws images for another process, ``python -m harness.data.causal3dident.worker FD``: tasks come and pixels go
over the socket with that number.

A program of its own and not one of ``multiprocessing``'s children: those import the user's script again, and a script
that draws images without a guard on ``__main__`` would then draw them again in every child.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from harness.data.causal3dident.renderer import Floats, Pixels, Renderer
from harness.data.causal3dident.scene import OBJECT_SIZE
from harness.data.causal3dident.shapes import Mesh
from harness.errors import UserError

#: First row, then classes, latents and seeds of some images.
Task = tuple[int, NDArray[np.int64], Floats, NDArray[np.int64]]


class Draughtsman:
    """Draws images of several classes, one scene each, built when first needed.

    Parameters
    ----------
    meshes
        Class -> shape.
    image_size
        Pixels a side.
    samples
        Light paths a pixel.
    object_size
        Largest side of an object in its scene.
    device
        What draws, ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        meshes: dict[int, Mesh],
        image_size: int,
        samples: int,
        object_size: float = OBJECT_SIZE,
        device: str = "cpu",
    ) -> None:
        self._meshes = meshes
        self._setting = (image_size, samples, object_size, device)
        self._renderers: dict[int, Renderer] = {}

    def draw(self, classes: NDArray[np.int64], latents: Floats, seeds: NDArray[np.int64]) -> Pixels:
        """Images (k, 3, size, size) of k classes, latents (k, 10) and seeds.

        Raises
        ------
        UserError
            If Mitsuba or the device is not there.
        """
        rows = zip(classes.tolist(), latents, seeds.tolist(), strict=True)
        return np.stack([self._renderer(which).render(row, seed) for which, row, seed in rows])

    def _renderer(self, which: int) -> Renderer:
        if which not in self._renderers:
            self._renderers[which] = Renderer(self._meshes[which], *self._setting)
        return self._renderers[which]


def main(connection: Connection) -> None:
    """Answer tasks in order until the other side is gone.

    The first message is a ``rendering.Job.setting``, each later one ``(start, classes, latents, seeds)``,
    answered by ``(start, pixels)``, or by a ``UserError``.
    """
    draughtsman = Draughtsman(*connection.recv())
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    while True:
        start, classes, latents, seeds = tasks.get()
        try:
            answer: tuple[int, Pixels] | UserError = (start, draughtsman.draw(classes, latents, seeds))
        except UserError as error:
            answer = error
        try:
            connection.send(answer)
        except OSError:
            return  # the other side is gone


def _receive(connection: Connection, tasks: queue.SimpleQueue[Task]) -> None:
    """Take tasks in, and end the process with the other side, which may have been killed: it cannot say so."""
    while True:
        try:
            tasks.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
