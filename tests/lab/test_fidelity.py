"Experiments report what was decided, judge their own data only, and draw in one style."
import ast
import json

from robust_smooth.lab import notebooks


def sources():
    "Each experiment's code."
    found = {}
    for name in notebooks.experiments():
        cells = json.loads(notebooks.find_notebook(name).read_text(encoding="utf-8"))["cells"]
        found[name] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert len(found) >= 39
    return found


def calls(source, name):
    "Calls of a function or method by its last name."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == name:
            yield node


def all_calls(name):
    "The same in every notebook, with its name and its source."
    return [(notebook, source, call) for notebook, source in sources().items() for call in calls(source, name)]


def test_a_plan_is_made_for_the_radii_that_are_reported():
    "A plan of quarter steps stops before a radius between them is decided; run.certify refuses what the plan left open."
    planned = all_calls("plan")
    for name, source, call in planned:
        given = ast.unparse(call.args[0])
        assert given != "None", name
        assert any(given == ast.unparse(one.args[1]) for one in calls(source, "certify") if len(one.args) > 1), name
    assert len(planned) >= 3


def test_no_claim_is_a_literal():
    "A verdict that is written down in advance judges nothing; None says that the question was not asked."
    judged = all_calls("claim")
    for name, _, call in judged:
        holds = call.args[2] if len(call.args) > 2 else None
        assert not (isinstance(holds, ast.Constant) and holds.value is not None), f"{name}: {ast.unparse(call)[:80]}"
    assert len(judged) >= 100


SHOWN_ELSEWHERE = {("bernstein", "table2"): "notation, in words: the chapter methods/10_bernstein uses it"}


def test_every_printed_item_is_read_by_an_experiment():
    "Numbers that are shipped are shown beside ours, or it is said why not."
    from robust_smooth.lab.papers import PAPERS, printed
    read = set()
    for source in sources().values():
        for call in calls(source, "printed"):
            given = [node.value for node in call.args if isinstance(node, ast.Constant)]
            if len(given) == 2:
                read.add(tuple(given))
            elif len(given) == 1: # printed("key", item) in a loop over items
                items = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
                read |= {(given[0], item) for item in items if isinstance(item, str)}
    shipped = {(key, item) for key in PAPERS for item in printed(key)["item"].unique()}
    assert len(shipped) >= 25
    assert shipped - read == set(SHOWN_ELSEWHERE)
