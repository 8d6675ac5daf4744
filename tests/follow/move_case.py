"""The case file of the move of one database."""


def write_move_case(folder, old, new, *, name="bank", follow=True, transfer=False):
    """Write ``moveout.toml`` for a move from one database to another one, by a bundle beside it. ``follow``: each
    export begins to follow the changes, also without ``--follow``. ``transfer``: the bundle is restored from a copy.
    """
    lines = ["[case]", f'name = "{name}"', *(["follow = true"] if follow else [])]
    lines += ["[[source]]", 'name = "app"', f'url = "{old}"', "[bundle]", 'location = "bundle"']
    lines += ["[transfer]", 'location = "copy"'] if transfer else []
    lines += ["[[destination]]", 'source = "app"', f'url = "{new}"', ""]
    (folder / "moveout.toml").write_text("\n".join(lines))
