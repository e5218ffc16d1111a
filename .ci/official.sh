# Sourced by .ci/run: installs the official host library into an environment of its own, and tells the tests where it is, so
# that they boot the official image and run the official binaries. Where that fails the tests say "not run", and all goes on.

official_venv="${TMPDIR:-/tmp}/spidnn-official-2"
official_packages=(
    # The library; what it does not need for talking to a board stays out (--no-deps).
    'SpiNNUtilities==1!7.4.1' 'SpiNNMachine==1!7.4.1' 'SpiNNMan==1!7.4.1' 'SpiNNFrontEndCommon==1!7.4.1'
    'numpy==2.4.6' 'appdirs==1.4.4' 'requests==2.34.2' 'urllib3==2.8.0' 'idna==3.20' 'certifi==2026.10.19.post1'
    'charset-normalizer==3.5.3' 'typing-extensions==4.16.0' 'websocket-client==1.9.2' 'PyYAML==6.0.4'
    'packaging==26.4' 'ebrains-drive==0.7.0' 'tqdm==4.70.1'
)
if [ ! -e "$official_venv/complete" ]; then
    if python3 -m venv "$official_venv" &&
        timeout 120 "$official_venv/bin/python" -m pip install --quiet --no-deps "${official_packages[@]}"; then
        touch "$official_venv/complete"
    else
        echo "not run: the official host library cannot be installed" >&2
    fi
fi
if [ -e "$official_venv/complete" ]; then
    site=$("$official_venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    export SPINNAKER_PYTHON="$official_venv/bin/python"
    export SPINNAKER_BOOT_IMAGE="$site/spinnman/messages/spinnaker_boot/boot_data/scamp.boot"
    export SPINNAKER_APLX="$site/spinn_front_end_common"
fi

# The allocation server wants an older library than the one above, so it has an environment of its own.
spalloc_venv="${TMPDIR:-/tmp}/spidnn-spalloc-1"
spalloc_packages=(
    'spalloc_server==1!7.0.0' 'SpiNNMan==1!7.0.0' 'SpiNNMachine==1!7.0.0' 'SpiNNUtilities==1!7.0.0'
    'numpy==2.4.6' 'appdirs==1.4.4' 'requests==2.34.2' 'typing-extensions==4.16.0' 'websocket-client==1.9.2'
    'urllib3==2.8.0' 'idna==3.20' 'certifi==2026.10.19.post1' 'charset-normalizer==3.5.3' 'PyYAML==6.0.4' 'packaging==26.4'
    'pytz==2026.6'
)
if [ ! -e "$spalloc_venv/complete" ]; then
    if python3 -m venv "$spalloc_venv" &&
        timeout 120 "$spalloc_venv/bin/python" -m pip install --quiet --no-deps "${spalloc_packages[@]}"; then
        touch "$spalloc_venv/complete"
    else
        echo "not run: the official allocation server cannot be installed" >&2
    fi
fi
if [ -e "$spalloc_venv/complete" ]; then
    export SPALLOC_SERVER_PYTHON="$spalloc_venv/bin/python"
fi
