#!/bin/sh
# Fills the corpora with the smallest golden files of each kind.
set -eu
cd "$(dirname "$0")"
golden=../tests/fixtures/keras
mkdir -p corpus/keras_zip corpus/keras_h5 corpus/npz corpus/json
for case in "$golden"/*/; do
    name=$(basename "$case")
    for file in "$case"model*.keras; do
        [ -f "$file" ] && [ "$(wc -c < "$file")" -lt 50000 ] && cp "$file" "corpus/keras_zip/$name-$(basename "$file")"
    done
    for file in "$case"model*.h5; do
        [ -f "$file" ] && cp "$file" "corpus/keras_h5/$name-$(basename "$file")"
    done
    for file in "$case"weights.npz "$case"io.npz; do
        [ -f "$file" ] && [ "$(wc -c < "$file")" -lt 20000 ] && cp "$file" "corpus/npz/$name-$(basename "$file")"
    done
    for file in "$case"model*.json; do
        [ -f "$file" ] && cp "$file" "corpus/json/$name-$(basename "$file")"
    done
done
# The weights inside archives are HDF5 in Keras 3's own layout.
python3 - <<'END'
import glob, os, zipfile
for path in glob.glob("corpus/keras_zip/*.keras"):
    with zipfile.ZipFile(path) as archive:
        data = archive.read("model.weights.h5")
    name = os.path.basename(path)[: -len(".keras")]
    with open(f"corpus/keras_h5/{name}.weights.h5", "wb") as file:
        file.write(data)
END
