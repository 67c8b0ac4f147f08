# Everything runs in .venv, which is built on first use. `make` lists the targets.
# Given on the command line (make repro PROFILE=quick): an exported variable of such a name belongs to something else.
PROFILE  = icons
DATA     =
SEED     =
N        = 2
ONLY     =
BUDGETS  =
SEEDS    =
FIX      =
quoted   = '$(subst ','\'',$(value $1))'
PIPELINE = $(RUN) -m deconvnet.pipeline.repro --profile $(call quoted,PROFILE) $(if $(SEED),--seed $(SEED)) $(if $(value DATA),--data $(call quoted,DATA))
PYTEST   = $(RUN) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder
VENV    := .venv
RUN     := $(VENV)/bin/python src/deconvnet  # with this folder's code and a defined environment
PYTHON   = $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
DISK_GB := 8

# For the installation; what runs later has a defined environment: src/deconvnet/config/environment.py.
unexport PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONOPTIMIZE PIP_TARGET PIP_PREFIX PIP_ROOT DECONVNET_PYTHON
export PIP_USER := 0
export PYTHONNOUSERSITE := 1

.PHONY: moved asked in-git help install repro ablations seeds studies verify release evaluate bench test test-fast check-reports lint lab clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

install: $(VENV)/installed  ## the environment alone, in .venv

repro: asked $(VENV)/installed  ## the pipeline: PROFILE=icons (default) | quick | smoke | voc DATA=folder | voc2012
	@$(PIPELINE)

ablations: asked $(VENV)/installed  ## the pipeline, then DeconvNet without two stages, batch norm or unpooling (an hour)
	@$(PIPELINE) --ablations

seeds: asked $(VENV)/installed  ## the default, then again with N=2 other seeds: intervals over seeds, and the tolerance (an hour)
	@$(RUN) -m deconvnet.pipeline.repro --seeds $(N)

studies: $(VENV)/installed  ## the long studies: what is missing in reports/studies; ONLY="deconvnet fcn8s" BUDGETS="1 2" SEEDS=2 for a part
	@$(RUN) -m deconvnet.pipeline.studies $(if $(ONLY),--only $(ONLY)) $(if $(BUDGETS),--budgets $(BUDGETS)) $(if $(SEEDS),--seeds $(SEEDS))

verify: in-git asked $(VENV)/installed  ## two runs of PROFILE=smoke (default here) or icons in fresh clones: is every output the same?
	@$(RUN) -m deconvnet.pipeline.verify --profile $(if $(filter command line,$(origin PROFILE)),$(call quoted,PROFILE),smoke)

release: $(VENV)/installed  ## the networks of PROFILE's finished run as one file with a card: weights/icons.safetensors for the default
	@$(RUN) -m deconvnet.pipeline.release --profile $(call quoted,PROFILE)

evaluate: $(VENV)/installed  ## mean IoU of the five methods by weights/icons.safetensors, without training
	@$(RUN) -m deconvnet.pipeline.evaluate_weights

bench: $(VENV)/installed  ## speed on this machine, which should be idle, as ratios: reports/benchmarks.md
	@$(RUN) benchmarks/bench.py

test: in-git lint  ## lint and the tests, with one smoke run of the whole pipeline
	@$(PYTEST)

test-fast: lint  ## lint and the tests that need no pipeline run, browser, cluster or second process
	@$(PYTEST) -m "not slow and not reports"

check-reports: in-git $(VENV)/installed  ## do code, parameters, dvc.lock and the committed reports belong together?
	@$(RUN) -m deconvnet.pipeline.verify --quick
	@$(RUN) -m pytest -m reports

lint: $(VENV)/installed  ## ruff, and the direction of imports; FIX=1 repairs, and tidies the notebooks
	@$(if $(FIX),$(RUN) -m deconvnet.pipeline.run_notebook --tidy && $(VENV)/bin/ruff check -q --fix . && $(VENV)/bin/ruff format -q .)
	@$(VENV)/bin/ruff check -q . && $(VENV)/bin/ruff format -q --check .
	@report=$$($(RUN) -c 'from importlinter.cli import lint_imports_command as lint; lint()' --no-logo --no-cache 2>&1) || { echo "$$report"; exit 1; }

lab: $(VENV)/installed  ## JupyterLab in this environment
	@$(RUN) -m jupyterlab notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

clean:  ## removes separate runs, checkpoints and caches; the environment and committed results stay
	rm -rf runs checkpoints .pytest_cache .ruff_cache

asked:  # what can be known before the installation
	@test -f conf/$(call quoted,PROFILE).yaml || \
	  { echo "There is no profile" $(call quoted,PROFILE)". Known:" $(basename $(notdir $(wildcard conf/*.yaml))); exit 1; }
	@case $(call quoted,SEED)$(call quoted,N) in *[!0-9]*) echo "SEED and N are whole numbers."; exit 1;; esac
ifneq ($(value DATA),)
	@grep -q "source: folder" conf/$(call quoted,PROFILE).yaml || \
	  { echo "DATA goes with PROFILE=voc:" $(call quoted,PROFILE) "has data of its own."; exit 1; }
	@test -d $(call quoted,DATA)/JPEGImages || \
	  { echo $(call quoted,DATA) "is no folder in VOC layout: JPEGImages is missing there."; exit 1; }
else
	@! grep -qs "source: folder" conf/$(call quoted,PROFILE).yaml || \
	  { echo "PROFILE="$(call quoted,PROFILE) "needs a folder in VOC layout: add DATA=/path/to/folder."; exit 1; }
endif

in-git:
	@test -e .git || { echo "This clones the project, which is no Git repository here, but an unpacked archive." \
	  "Clone it instead, or: git init && git add . && git commit -m archive. (make repro does without.)"; exit 1; }
	@git rev-parse -q --verify HEAD >/dev/null || { echo "Git cannot read this repository, for the reason above if there is one, or it has no commit."; exit 1; }

# The programs in .venv hold its path. In a moved or copied folder it is built again.
ifneq ($(shell cat $(VENV)/installed 2>/dev/null),$(shell pwd -P))
$(VENV)/installed: moved
endif

$(VENV)/installed: requirements.txt pyproject.toml
	@test "`uname -s`" = Linux || { echo "This runs on Linux alone, not on `uname -s`: use a Linux container, or WSL on Windows."; exit 1; }
	@command -v git >/dev/null || { echo "git is missing: install it (Debian: apt install git)."; exit 1; }
	@command -v g++ >/dev/null || { echo "A C++ compiler is missing, which pydensecrf needs (Debian: apt install g++)."; exit 1; }
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 is missing (Debian: apt install python3 python3-venv python3-dev)."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || \
	  { echo "$(PYTHON) is `$(PYTHON) --version`; Python 3.11 to 3.14 is needed. Name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing (Debian: apt install python3-venv)."; exit 1; }
	@$(PYTHON) -c 'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || \
	  { echo "Python's headers are missing, which pydensecrf needs (Debian: apt install python3-dev)."; exit 1; }
	@test "`cat $(VENV)/installed 2>/dev/null`" = "`pwd -P`" || rm -rf $(VENV)
	@test -d $(VENV) || test `df -Pk . | awk 'NR==2 {print int($$4/1048576)}'` -ge $(DISK_GB) || \
	  { echo "$(DISK_GB) GB of free disk are needed here: 6 for the environment, 2 for the default run."; exit 1; }
	@test -d $(VENV) || echo "Building $(VENV) with $(PYTHON): about 6 GB, a few minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check -r requirements.txt
	@$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 13))' || exit 0; \
	  CYTHON_FORCE_REGEN=1 $(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-build-isolation \
	  --no-deps `grep -o '^pydensecrf2==[0-9.]*' requirements.txt`
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@pwd -P > $@
