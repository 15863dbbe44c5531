"Build configuration, read from settings.ini; the wheel also carries the papers' printed numbers, the experiment notebooks and the trained networks."
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
extras = {name: cfg[f"{name}_requirements"].split() for name in ("repro", "cluster", "docs")}
optional = {name: cfg[f"{name}_requirements"].split() for name in ("openvino", "int8")} # tests skip without them
extras["dev"] = sum(extras.values(), []) + cfg["dev_requirements"].split()
extras |= optional
readme = here / "README.md"
assets = {
    "papers": ("data/papers", "*.csv"),
    "experiments": ("nbs/experiments", "*.ipynb"),
    "zoo": ("data/zoo", "*.*"),
}
STAY = ("-int8.", "-clean.") # in the checkout: twins, which whoever votes by them can make, and networks that have seen no noise


class BuildWithAssets(build_py):
    "Copy the assets into the package; an editable install uses the checkout's own."

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):
            return
        for kind, (folder, pattern) in assets.items():
            target = Path(self.build_lib) / cfg["lib_name"] / "assets" / kind
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted((here / folder).glob(pattern)):
                if not any(mark in path.name for mark in STAY):
                    shutil.copy2(path, target / path.name)


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    keywords=cfg["keywords"],
    author=cfg["author"],
    license="Apache-2.0",
    python_requires=f">={cfg['min_python']}",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else cfg["description"],
    long_description_content_type="text/markdown",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["robust_smooth", "robust_smooth.*"]),
    package_data={"": ["py.typed", "*.pyi"]},
    include_package_data=True,
    zip_safe=False,
    cmdclass={"build_py": BuildWithAssets},
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
)
