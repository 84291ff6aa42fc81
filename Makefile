# The two commands of the README are `make demo` and `make test`; `make help` lists the others.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
PYTHONS ?= 3.11 3.12 3.13

# What an installed cryotile is made of: pip runs again only when one of these is newer than its stamp.
SOURCES := pyproject.toml setup.py MANIFEST.in README.md LICENSE \
	$(shell find src -name '*.py' -o -name '*.py[xi]' -o -name '*.pxd' -o -name '*.[ch]' -o -name '*.json' -o -name '*.html' -o -name '*.js' -o -name '*.css' -o -name '*.npz' -o -name '*.mplstyle')

.PHONY: help demo test test-faults lint format docs gallery screenshots calibration bench-backends bench-fit bench-pointdb bench-taskfarm bench-load bench-page wheels image-check bench-totals bench-product clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo       install, then simulate, ingest, fit, map and total a mission, with a series, in demo/'
	@echo 'make test       install with the test extras, run the whole test suite (PYTEST_ARGS=…)'
	@echo 'make test-faults  kill workers at least 200 times, at moments drawn by seed; damage every kind of file'
	@echo 'make lint       ruff, mypy and import-linter'
	@echo 'make format     let ruff format the code'
	@echo 'make docs       build the documentation in docs/_build/html'
	@echo 'make gallery    draw the pictures of the gallery anew, in docs/_static'
	@echo 'make screenshots  picture each view of the page anew, in docs/_static'
	@echo 'make bench-page  the frames of the page with 400 000 tiles, in Chromium'
	@echo 'make bench-taskfarm  the task-farm server beside the first one; table, and plot in docs/_static'
	@echo 'make bench-load   2000 workers and 10 watchers of the task-farm server for ten minutes; table, and plot in docs/_static'
	@echo 'make bench-pointdb  size and speed of the point DB; table, and plot in docs/_static'
	@echo 'make bench-backends  compare the backends (12 minutes): docs/backends/benchmark.md'
	@echo 'make bench-fit  compare the fit with other ways; table, and plot in docs/_static (BEFORE=src of an older checkout)'
	@echo 'make calibration  how often the 95 % interval holds the truth; tables and plots in docs/_static'
	@echo 'make wheels     build wheels twice, repair them, try them in bare environments (PYTHONS=…)'
	@echo 'make bench-totals  how often the 95 % interval of a total holds the truth; table in docs/_static'
	@echo 'make image-check  carry out the steps of deploy/Dockerfile without a container engine, start the server (root, 5 minutes)'
	@echo 'make bench-product  memory and time of a product of 14 million posts, Antarctica every kilometre'
	@echo 'make clean      remove what was built, but not the virtual environment'

demo: $(VENV)/with-plot,geo
	$(BIN)/cryotile demo demo/

# A process runs all tests of a file, so that a service which a machine can have once (Slurm, Grid Engine) is started once.
test: $(VENV)/with-all,test
	$(BIN)/python -m pytest -n 3 --dist loadfile $(PYTEST_ARGS)

test-faults: $(VENV)/with-all,test
	CRYOTILE_LONG=1 $(BIN)/python -m pytest --timeout 3000 tests/backends/test_faults.py tests/ledgers/test_faults_sql.py \
		tests/taskfarm/test_server_faults.py tests/backends/test_mpi.py tests/pointdb/test_faults.py tests/damage $(PYTEST_ARGS)

lint: $(VENV)/with-all,dev,test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/with-all,dev,test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/with-plot,server,docs
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

screenshots: $(VENV)/with-all,test
	CRYOTILE_SCREENSHOTS=docs/_static $(BIN)/python -m pytest -k 'run or audit' tests/taskfarm/test_page_views.py

gallery: $(VENV)/with-plot
	for script in docs/gallery/*.py; do \
		$(BIN)/python $$script docs/_static/gallery-$$(basename $$script .py).png || exit 1; \
	done

bench-page: $(VENV)/with-all,test
	PYTHONPATH=. $(BIN)/python benchmarks/frames.py

bench-taskfarm: $(VENV)/with-all,test,bench
	PYTHONPATH=. $(BIN)/python benchmarks/taskfarm.py --output docs/_static

bench-load: $(VENV)/with-all,test,bench
	PYTHONPATH=. $(BIN)/python benchmarks/load.py --output docs/_static

bench-pointdb: $(VENV)/with-all,test
	$(BIN)/python benchmarks/pointdb --plot docs/_static/bench-pointdb.png --table docs/_static/bench-pointdb.inc

bench-backends: $(VENV)/with-all,test,bench
	PYTHONPATH=. $(BIN)/python benchmarks/backends --services

bench-fit: $(VENV)/with-all,test,bench
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/fit.py --plot docs/_static/bench-fit.svg \
		--table docs/_static/bench-fit.inc $(if $(BEFORE),--before $(BEFORE))

bench-totals: $(VENV)/with-all,test,bench
	PYTHONPATH=. OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/totals.py

bench-product: $(VENV)/with-all,test
	for suffix in .nc .zarr .tif; do $(BIN)/python benchmarks/product.py 4000 3500 $$suffix || exit 1; done

calibration: $(VENV)/with-all,test,bench
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/calibration.py --processes 2

wheels:
	.ci/wheels $(PYTHONS)

image-check:
	.ci/image

clean:
	rm -rf build dist docs/_build src/*.egg-info src/cryotile/*.c

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A normal install, not an editable one: tests and demo meet the package that users get, with its package data, its
# compiled kernel and nothing else.  build/lib goes first, or modules that were removed from src would be installed.
$(VENV)/with-%: $(SOURCES) | $(BIN)/python
	rm -rf build/lib*
	@echo 'installing cryotile with its extras $* into $(VENV); this takes some minutes the first time'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[$*]'
	touch '$@'
