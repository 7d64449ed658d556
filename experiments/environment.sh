# Sourced by tests/run.sh and experiments/quickstart.sh: makes and refreshes .venv.
# Works from the root of the repository. PYTHON=python3.12 chooses an interpreter.

fail() {
  echo "error: $*" >&2
  exit 1
}

# Print the first interpreter that is new enough and can make environments.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c 'import sys, ensurepip, venv
sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python >= 3.11 with the venv module among: ${PYTHON:-python3 python3.13" \
    "python3.12 python3.11 python}. Install one (Debian and Ubuntu: apt install" \
    "python3 python3-venv), or name it: PYTHON=/path/to/python3 bash $0"
}

# install EXTRAS: `pip install -e .EXTRAS` into .venv, only if setup.py changed since.
install() {
  local extras=$1 stamp=".venv/installed$1" python
  if [ ! -x .venv/bin/python ]; then
    python=$(find_python) || exit 1
    echo "making the environment .venv with $("$python" --version)"
    "$python" -m venv .venv || fail "could not make .venv; delete it and try again"
  fi
  if cmp -s setup.py "$stamp"; then
    return
  fi
  echo "installing packages into .venv (once; a few minutes, about 2 GB)"
  .venv/bin/python -m pip install --disable-pip-version-check -e ".$extras" |
    grep --line-buffered -E '^(Collecting|Installing|Building|Successfully|ERROR)' ||
    fail "the installation failed; see the lines above, then run the same command"
  cp setup.py "$stamp"
}
