"""The table of config/schema.py as docs/yaml.md: `linuxkit schema --markdown > docs/yaml.md`; a test compares."""

from __future__ import annotations

from linuxkit.config import schema
from linuxkit.config.types import AnyOf, Bool, Field, Int, ListOf, MapOf, Object, Str, Type

_HEAD = """\
# YAML reference

<!-- Made from src/linuxkit/config/schema.py: linuxkit schema --markdown > docs/yaml.md -->

One YAML file describes one machine. The smallest that does something:

```yaml
kernel:
  image: kit://kernel
  cmdline: "console=ttyS0"
init:
  - kit://init
  - kit://crun
services:
  - name: hello
    image: busybox:latest
    command: ["/bin/sh", "-c", "while true; do echo hello; sleep 5; done"]
```

At boot the images of `init` make up the root filesystem, then the `onboot` containers run one after the other, then the
`services` start, and `onshutdown` containers run when the machine is told to stop.

## Rules for every file

- The format is LinuxKit's; a LinuxKit file builds unchanged. What differs is listed in [compat.md](compat.md).
- Every key is checked. An unknown key is an error, a key with nothing after it is an error, and all errors of a file
  are shown together, each with its line and column.
- YAML 1.2: `yes`, `no`, `on` and `off` are text, only `true` and `false` are booleans. A number where text is wanted
  has to stand in quotes (`mode: "0644"`). Anchors, aliases and merge keys (`<<`) work. A key given twice is an error.
- There is no interpolation: `$HOME` in a file is five characters.
- Several files (`linuxkit build base.yml app.yml`) are put together from left to right: lists are joined, and each key
  of `kernel` that a later file gives replaces the earlier one. A file may be an http(s) address, or `-` for standard
  input.
- Images are named as for Docker (`nginx:1.27`, `ghcr.io/a/b@sha256:…`), or by where they are: `kit://NAME` (a package
  of the kit), `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`. In a file on this machine, a
  value `"@pkg:DIR"` stands for the image name of the package in that directory, relative to the file.
- Editors can check while you type: `linuxkit schema` prints a JSON Schema.

"""
_CONTAINER = """\
## onboot, onshutdown, services

Lists of containers with the same keys. `name` and `image` are required; nothing else is. What an entry does not say,
the image's label `org.mobyproject.config` may say (JSON or YAML with the same keys, without `name` and `image`), and
where neither says anything the default holds. A key that is present wins even when it is empty: `binds: []` clears the
label's.

A container has no capabilities, sees only its own processes, and shares the machine's network unless it says otherwise.

```yaml
onboot:
  - name: dhcp
    image: kit://dhcpcd
services:
  - name: web
    image: nginx:1.27
    capabilities: ["CAP_NET_BIND_SERVICE", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"]
    binds.add: ["data:/usr/share/nginx/html:ro"]
    restart: on-failure
volumes:
  - name: data
```

"""
_EXAMPLES = {
    "kernel": 'kernel:\n  image: kit://kernel\n  cmdline: "console=ttyS0 quiet"',
    "files": (
        'files:\n  - path: etc/motd\n    contents: "hello\\n"\n    mode: "0644"\n  - path: etc/localtime\n'
        "    symlink: /usr/share/zoneinfo/UTC\n  - path: root/.ssh/authorized_keys\n    source: ~/.ssh/id_ed25519.pub\n"
        '    optional: true\n    mode: "0600"'
    ),
    "volumes": "volumes:\n  - name: data\n  - name: site\n    image: example.org/site:1\n    readonly: true",
    "mount": 'mounts:\n  - type: tmpfs\n    destination: /cache\n    options: ["nosuid", "size=10m"]',
    "resources": 'resources:\n  memory: {limit: 104857600}\n  cpu: {shares: 512, cpus: "0-1"}\n  pids: {limit: 100}',
    "runtime": "runtime:\n  mkdir: [/var/lib/data]\n  interfaces:\n    - name: wg0\n      add: wireguard",
    "device": 'devices:\n  - path: /dev/console\n    type: c\n    major: 5\n    minor: 1\n    mode: "0666"',
}


def yaml_reference() -> str:
    """The whole page, Markdown."""
    parts = [_HEAD, "## Top level\n\n", _table(schema.TOP.fields)]
    parts += _section(schema.KERNEL)
    parts += [_CONTAINER, _table(schema.SERVICE.fields[:2]), _table(schema.SETTINGS.fields)]
    ours = (schema.RESTART, schema.HEALTH, schema.ONFAIL, schema.TIMEOUT)
    parts += ["These keys are not LinuxKit's:\n\n", _table(ours)]
    tables = (schema.HEALTHCHECK, schema.MOUNT, schema.DEVICE, schema.ID_MAPPING, schema.RUNTIME, schema.INTERFACE)
    for of in (*tables, schema.BIND_NS):
        parts += _section(of, "###")
    parts += _section(schema.RESOURCES, "###")
    for field in schema.RESOURCES.fields:
        inner = field.type.item if isinstance(field.type, ListOf) else field.type
        assert isinstance(inner, Object)
        parts += [f"#### {inner.name}\n\n", _table(inner.fields)]
        for deeper in _below(inner):
            parts += [f"##### {deeper.name}\n\n", _table(deeper.fields)]
    for of in (schema.VOLUME, schema.FILE, schema.TRUST):
        parts += _section(of)
    return "".join(parts).rstrip("\n") + "\n"


def _below(of: Object) -> list[Object]:
    """The objects inside this one's lists, each once."""
    found: dict[str, Object] = {}
    for field in of.fields:
        if isinstance(field.type, ListOf) and isinstance(field.type.item, Object):
            found.setdefault(field.type.item.name, field.type.item)
    return list(found.values())


def _section(of: Object, level: str = "##") -> list[str]:
    example = f"```yaml\n{_EXAMPLES[of.name]}\n```\n\n" if of.name in _EXAMPLES else ""
    return [f"{level} {of.name}\n\n", f"{of.doc}\n\n" if of.doc else "", example, _table(of.fields)]


def _table(fields: tuple[Field, ...]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for field in fields:
        doc = field.doc + (f" Example: `{field.example}`" if field.example else "")
        default = "required" if field.required else field.default
        cells = (f"`{field.name}`", type_name(field.type), default, doc)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n\n"


def type_name(of: Type) -> str:
    """A type in a word or two; an object is a link to its section."""
    match of:
        case Str():
            return " or ".join(f"`{choice}`" for choice in of.choices) or ("image" if of.image else "string")
        case Int():
            return "integer"
        case Bool():
            return "boolean"
        case AnyOf():
            return " or ".join(type_name(option) for option in of.of)
        case ListOf():
            return f"list of {type_name(of.item)}"
        case MapOf():
            return f"name → {type_name(of.value)}"
        case Object():
            anchor = of.name.lower().replace(".", "")
            if of.name in ("onboot", "onshutdown", "services"):
                anchor = "onboot-onshutdown-services"
            return f"[{of.name}](#{anchor})"
