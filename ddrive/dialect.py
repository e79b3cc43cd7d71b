"""The two families of peers, which differ in constants only.

A dialect is a value that is passed along; no code asks which one it has. Source: the npm packages `ddatabase@10`,
`basestorex@1`, `ddrive@5`, `@dswarm/dht@1` (dweb) and `hypercore@9`, `corestore@5`, `hyperdrive@10`,
`@hyperswarm/dht@4` (hypercore).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """The constants of one family: hash inputs, type names, key prefixes and the names used in the open."""

    name: str
    discovery_ns: bytes  # message of the discovery key hash
    capability_ns: bytes  # message prefix of the channel capability hash
    trie_type: str  # `type` of a trie header, and the name of the trie's replication extension
    trie_subtype: str | None  # `subtype` of a drive's trie header
    store_ns: bytes  # namespace of key derivation in a store
    tag_prefix: str  # prefix of the hidden trie keys that name versions
    url_scheme: str
    lan_domain: str
    dht_nodes: tuple[str, ...]  # `host:port` of nodes of the DHT where its peers look for each other


DWEB = Dialect(
    name="dweb",
    discovery_ns=b"ddatabase",
    capability_ns=b"ddatabase capability",
    trie_type="dwebtrie",
    trie_subtype=None,
    store_ns=b"basestore",
    tag_prefix="ddrive-tags/",
    url_scheme="dweb",
    lan_domain="dwebswarm.local",
    dht_nodes=("dht1.dwebx.net:49737", "dht2.dwebx.net:49737", "dht3.dwebx.net:49737"),
)
HYPERCORE = Dialect(
    name="hypercore",
    discovery_ns=b"hypercore",
    capability_ns=b"hypercore capability",
    trie_type="hypertrie",
    trie_subtype="hyperdrive",
    store_ns=b"corestore",
    tag_prefix="hyperdrive-tags/",
    url_scheme="hyper",
    lan_domain="hyperswarm.local",
    dht_nodes=("bootstrap1.hyperdht.org:49737", "bootstrap2.hyperdht.org:49737", "bootstrap3.hyperdht.org:49737"),
)
DIALECTS = {dialect.name: dialect for dialect in (DWEB, HYPERCORE)}
