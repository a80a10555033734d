"""`signalbox templates`: what customers are told, looked at before anybody is told it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from services.notifier.core.policy import NotifyFile

app = typer.Typer(help="The words that customers get.", no_args_is_help=True)

_FOLDER = typer.Option(
    "--policy", help="The policy folder; SIGNALBOX_POLICY or ./policy where it is left out."
)
_LANGUAGE = typer.Option(
    "--language", help="Only this language, an ISO 639-1 code; all of notify.yaml where left out."
)


@app.callback()
def _group() -> None:
    """The words that customers get."""


@app.command()
def lint(folder: Annotated[Path | None, _FOLDER] = None) -> None:
    """Find what customers would stumble over: file, line, rule, why.

    Missing files, a wrong order, no way to a person, hasty promises, blame, jargon, shouting, long subjects and sentences, hard
    reading, facts that only some languages tell. Exit code 1 where there is an error; warnings alone do not change it.
    """
    from cli.places import policy_folder
    from services.notifier.core.tone import lint as find

    where = folder or policy_folder()
    file, sources = read(where)
    found = find(sources, tuple(file.languages))
    for one in found:
        typer.echo(str(one))
    errors = sum(one.level == "error" for one in found)
    templates = where / "templates"
    typer.echo(
        f"{templates}: {errors} errors, {len(found) - errors} warnings."
        if found
        else f"{templates}: in order."
    )
    if errors:
        raise typer.Exit(1)


@app.command()
def preview(
    language: Annotated[str, _LANGUAGE] = "",
    out: Annotated[
        Path, typer.Option(help="The file to write; one that is there is replaced.")
    ] = Path("templates-preview.html"),
    folder: Annotated[Path | None, _FOLDER] = None,
) -> None:
    """Write one page that shows every notice for a sample ticket: by language, at a desk and on a telephone, light and dark.

    It shows also what is said of each topic, and the beginnings of answers that `templates starter` prints. The page needs no network, and the mails in it can do nothing.
    """
    from cli.errors import CommandError, UsageMistake
    from cli.places import policy_folder
    from cli.template_page import page
    from services.notifier.core.render import TemplateMistake, compile_templates

    where = folder or policy_folder()
    file, sources = read(where)
    if language and language not in file.languages:
        known = ", ".join(sorted(file.languages))
        raise UsageMistake(f"--language {language}: notify.yaml has {known}.")
    languages = (language,) if language else tuple(file.languages)
    try:
        templates = compile_templates(sources, tuple(file.languages))
    except TemplateMistake as mistake:
        raise CommandError(f"{mistake}; `signalbox templates lint` finds the rest.") from mistake
    out.write_text(page(templates, file, languages), encoding="utf-8")
    typer.echo(f"{out}: every notice in {', '.join(languages)}. Open it in a browser.")


@app.command()
def starter(
    topic: Annotated[
        str, typer.Argument(help="What the answer is about, or `closing`.", metavar="TOPIC")
    ],
    language: Annotated[str, typer.Option("--language", help="An ISO 639-1 code.")] = "en",
    name: Annotated[str, typer.Option(help="How the customer is called.")] = "",
    folder: Annotated[Path | None, _FOLDER] = None,
) -> None:
    """Print the beginning of an answer about a topic, for a person to finish; what stands in [brackets] is theirs."""
    from cli.errors import UsageMistake
    from cli.places import policy_folder
    from services.notifier.core.render import TOPICS, Facts, compile_templates

    file, sources = read(folder or policy_folder())
    if topic not in (*TOPICS, "closing"):
        raise UsageMistake(f"{topic}: the topics are {', '.join((*TOPICS, 'closing'))}.")
    if language not in file.languages:
        raise UsageMistake(f"--language {language}: notify.yaml has {', '.join(file.languages)}.")
    templates = compile_templates(sources, tuple(file.languages))
    facts = Facts(language, name, "", file.languages[language].signature, "", "", "")
    typer.echo(templates.starter(topic, facts))


def read(folder: Path) -> "tuple[NotifyFile, Mapping[str, str]]":
    """Return `notify.yaml` and the templates' sources, unchecked but for their form.

    Raises:
        PolicyError: a file cannot be read.
    """
    from chassis.policy import PolicyFiles, load
    from services.notifier.core.policy import FILE, NotifyFile
    from services.notifier.core.render import FOLDER
    from services.notifier.handlers import read_templates

    files = PolicyFiles(
        files={FILE: NotifyFile},
        build=lambda parsed, where, _version: (parsed[FILE], read_templates(where / FOLDER)),
        folders=(FOLDER,),
    )
    return load(folder, files)
