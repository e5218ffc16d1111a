# Run by .ci/run: the committed firmware is what its source gives, byte for byte. The compiler is Debian's; where it cannot be
# installed, that is said, and all goes on (the tests run the committed images in any case).

set -euo pipefail
firmware_packages=(rustc-web rust-web-src lld)
if ! /usr/bin/rustc --version 2>/dev/null | grep -q '^rustc 1\.96\.0' || ! command -v ld.lld >/dev/null; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${firmware_packages[@]}"; } >/dev/null 2>&1 || true
fi
if /usr/bin/rustc --version 2>/dev/null | grep -q '^rustc 1\.96\.0'; then
    cargo xtask firmware --check
    cargo xtask size
else
    echo "not run: the firmware's compiler (Debian: ${firmware_packages[*]}, rustc 1.96.0) cannot be installed" >&2
fi
