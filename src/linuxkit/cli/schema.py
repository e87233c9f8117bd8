"""linuxkit schema"""

from __future__ import annotations

import click


@click.command()
@click.option("--markdown", is_flag=True, help="The YAML reference (docs/yaml.md) instead.")
def schema(markdown: bool) -> None:
    """Print the JSON Schema of the YAML.

    \b
    Editors with a YAML language server use it for completion and for errors while typing:
      linuxkit schema > linuxkit.schema.json
      # yaml-language-server: $schema=linuxkit.schema.json      (first line of the YAML file)
    """
    if markdown:
        from linuxkit.config.docs import yaml_reference

        click.echo(yaml_reference(), nl=False)
        return
    import json

    from linuxkit.config.jsonschema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
