"""What a server says of its model and version: part of the key of each answer, so that a new version is asked again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from theodolite.asking.endpoint.cache import ResponseCache, content_key
from theodolite.asking.endpoint.capabilities import send_trial
from theodolite.asking.endpoint.channel import Channel, EndpointSettings, Exhausted, Refused
from theodolite.records.endpoint import Capabilities


class Version(NamedTuple):
    """A server's names of the model and of its version (`system_fingerprint`); None: it says none."""

    model: str | None = None
    fingerprint: str | None = None


class ServerVersions:
    """The versions as which a server answers in this session: that of a question about a blank picture, then those of its answers.

    Hosts answer from several machines of one model, whose fingerprints differ. So the fingerprints that one session met are remembered
    together in the cache: a server that says one of them is taken to be as it was, and all of their answers are found. Another fingerprint
    or another model means a new version, whose answers are asked for again.
    """

    def __init__(self, settings: EndpointSettings, cache: ResponseCache) -> None:
        self.cache = cache
        self._key = content_key(["version", settings.public_url, settings.model])
        self._listed: str | None = None
        self.current: list[Version] = []

    def recall(self) -> list[Version]:
        """The versions of the last session; one without names if there was none."""
        return [Version(*version) for version in self.cache.recall_server(self._key) or []] or [Version()]

    def identify(self, channel: Channel, capabilities: Capabilities) -> str | None:
        """Finds the version by one request, once; a notice if the server cannot be asked and the last known version is taken."""
        if self.current:
            return None
        before = self.cache.recall_server(self._key)
        try:
            response = send_trial(channel, capabilities, None if before is None else 1)
        except (Refused, Exhausted) as error:
            if before is None:
                raise
            self.current = self.recall()
            return f"the server's version is that of the last session, since it could not be asked for it ({error})"
        if version_of(response).model is None:
            self._listed = channel.listed_model()
        version = self.of(response)
        remembered = [other for other in self.recall() if other.model == version.model]
        self.current = remembered if version in remembered else [version]
        self.cache.remember_server(self._key, self.current)
        return None

    def of(self, response: Mapping[str, Any]) -> Version:
        """The version of a response, with the model's id from the server's list where the response has none."""
        version = version_of(response)
        return version if version.model is not None else version._replace(model=self._listed)

    def meet(self, version: Version) -> None:
        """Adds a version that an answer names."""
        if version not in self.current:
            self.current.append(version)
            self.cache.remember_server(self._key, self.current)


def version_of(response: Mapping[str, Any]) -> Version:
    """The version that a response names."""
    model, fingerprint = response.get("model"), response.get("system_fingerprint")
    return Version(model if isinstance(model, str) else None, fingerprint if isinstance(fingerprint, str) else None)


def versioned_key(key: str, version: Version) -> str:
    """The key of an answer by one version of a server, from the key of its request; the same for a server that names no version."""
    return content_key([key, *version]) if any(version) else key
