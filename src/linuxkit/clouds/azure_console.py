"""The console of a machine at Azure: what it writes to its first serial port.

    POST machine/retrieveBootDiagnosticsData   an address of a blob, good for an hour, that is its own permission
    GET  that address, Range: bytes=N-         what came since; 416 when nothing did

The blob is Azure's own ("managed boot diagnostics"). It begins anew when the machine is started again.
"""

from __future__ import annotations

from linuxkit.clouds.azure_api import Arm
from linuxkit.clouds.azure_blob import VERSION
from linuxkit.foreign import number_or
from linuxkit.oci.transport import redact
from linuxkit.places.rest import RefusedError

MAX = 64 << 20


class Console:
    """Of one machine, named by its path. The job's `output` takes what is new."""

    def __init__(self, arm: Arm, machine: str) -> None:
        self._arm, self._machine = arm, machine
        self._url, self._offset = "", 0

    def show(self) -> None:
        """Print what is new since the last time.

        Raises:
            NetworkError: it can't be had.
        """
        for _ in range(4):
            if not self._url:
                told = self._arm.post(f"{self._machine}/retrieveBootDiagnosticsData", reads=True, allow=(404, 409),
                                      sasUriExpirationTimeInMinutes="60")  # fmt: skip
                self._url = str((told or {}).get("serialConsoleLogBlobUri") or "")
                if not self._url:
                    return
            status, data, length = self._fetch()
            if status == 403:  # its hour is over
                self._url = ""
                continue
            if status == 416 and 0 <= length < self._offset:  # the machine was started anew
                self._offset = 0
                continue
            if status == 200:  # all of it
                data = data[self._offset :]
            if status in (200, 206):
                data = data.rstrip(b"\0")
                self._arm.job.output(data)
                self._offset += len(data)
            return

    def _fetch(self) -> tuple[int, bytes, int]:
        """Status, bytes from the offset on, and how long the whole is (-1: not said)."""
        headers = {"range": f"bytes={self._offset}-", "x-ms-version": VERSION}
        with self._arm.job.transport.get(self._url, headers) as response:
            data = response.read(MAX)
            told = response.headers.get("content-range", "").rpartition("/")[2]
            if response.status not in (200, 206, 403, 404, 416):
                raise RefusedError(f"{redact(self._url)} answers {response.status}", status=response.status)
        return response.status, data, number_or(told, -1)
