# Sourced by .ci/run: installs official host software and an oracle for the processor into environments of their own, and tells the
# tests where they are, so that they boot the official image, run the official binaries, and compare. Where that fails the tests say
# "not run", and all goes on.

# environment NAME PACKAGE..: makes an environment, once, and leaves its place in $venv.
environment() {
    venv="${TMPDIR:-/tmp}/spidnn-$1"
    shift
    if [ -e "$venv/complete" ]; then
        return
    fi
    if python3 -m venv "$venv" && timeout 120 "$venv/bin/python" -m pip install --quiet --no-deps "$@"; then
        touch "$venv/complete"
    else
        echo "not run: what $venv is for cannot be installed" >&2
        return 1
    fi
}

# The host library. What it does not need for talking to a board stays out (--no-deps).
official_packages=(
    'SpiNNUtilities==1!7.4.1' 'SpiNNMachine==1!7.4.1' 'SpiNNMan==1!7.4.1' 'SpiNNFrontEndCommon==1!7.4.1'
    'numpy==2.4.6' 'appdirs==1.4.4' 'requests==2.34.2' 'urllib3==2.8.0' 'idna==3.20' 'certifi==2026.10.19.post1'
    'charset-normalizer==3.5.3' 'typing-extensions==4.16.0' 'websocket-client==1.9.2' 'PyYAML==6.0.4'
    'packaging==26.4' 'ebrains-drive==0.7.0' 'tqdm==4.70.1'
)
if environment official-2 "${official_packages[@]}"; then
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    export SPINNAKER_PYTHON="$venv/bin/python"
    export SPINNAKER_BOOT_IMAGE="$site/spinnman/messages/spinnaker_boot/boot_data/scamp.boot"
    export SPINNAKER_APLX="$site/spinn_front_end_common"
fi

# The allocation server wants an older library than the one above.
spalloc_packages=(
    'spalloc_server==1!7.0.0' 'SpiNNMan==1!7.0.0' 'SpiNNMachine==1!7.0.0' 'SpiNNUtilities==1!7.0.0'
    'numpy==2.4.6' 'appdirs==1.4.4' 'requests==2.34.2' 'typing-extensions==4.16.0' 'websocket-client==1.9.2'
    'urllib3==2.8.0' 'idna==3.20' 'certifi==2026.10.19.post1' 'charset-normalizer==3.5.3' 'PyYAML==6.0.4' 'packaging==26.4'
    'pytz==2026.6'
)
if environment spalloc-1 "${spalloc_packages[@]}"; then
    export SPALLOC_SERVER_PYTHON="$venv/bin/python"
fi

# Another emulator of an ARMv5TE core.
if environment oracle-1 'unicorn==2.1.4'; then
    export SPINNAKER_ORACLE_PYTHON="$venv/bin/python"
fi
