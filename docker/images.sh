#!/usr/bin/env bash
# make images, make push: build all targets with their labels; push them under a tag for each commit.
#
#   docker/images.sh build [TARGET...]   san-pipeline:TARGET and san-pipeline:TARGET-COMMIT
#   docker/images.sh push REGISTRY       the same, then REGISTRY/san-pipeline:TARGET-COMMIT
#
# The environment variable IMAGE_NAME replaces san-pipeline.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${IMAGE_NAME:-san-pipeline}
commit=$(git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown)
# Images also contain untracked files of the packages.
if [ "$commit" != unknown ] && [ "${commit%-dirty}" = "$commit" ] &&
    [ -n "$(git ls-files --others --exclude-standard -- components san_core)" ]; then
    commit=$commit-dirty
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
targets=(cpu gpu onnx)
command=${1:-}
shift || true

fail() {
    echo "images.sh: $1" >&2
    exit "${2:-1}"
}

build() {
    local passed=()
    for variable in BASE_IMAGE PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS TORCH_CUDA TORCH_INDEX_URL; do
        [ -z "${!variable+set}" ] || passed+=(--build-arg "$variable")
    done
    for target in "$@"; do
        docker build --quiet -f docker/Dockerfile --target "$target" "${passed[@]}" \
            --build-arg VERSION="$version" --build-arg COMMIT="$commit" \
            -t "$name:$target" -t "$name:$target-$commit" . >/dev/null || fail "$target was not built"
        echo "$name:$target-$commit"
    done
}

push() {
    local registry=${1:-}
    local pinned=()
    [ -n "$registry" ] || fail "name a registry: make push REGISTRY=registry.example/project" 2
    case $commit in
    unknown) fail "this is not a git checkout, so the commit for the image names is unknown" ;;
    *-dirty) fail "commit first: a pushed image is named by the commit it was built from" ;;
    esac
    build "${targets[@]}" >/dev/null
    for target in "${targets[@]}"; do
        local there="$registry/$name:$target-$commit"
        docker tag "$name:$target-$commit" "$there"
        docker push --quiet "$there" >/dev/null || fail "$there was not pushed"
        pinned+=("$target=$(docker image inspect "$there" --format '{{range .RepoDigests}}{{println .}}{{end}}' |
            grep -F "$registry/$name@")")
    done
    echo "--image '$registry/$name:{target}-$commit'"
    echo "or by digest:"
    echo "--image '${pinned[0]},${pinned[1]}'"
}

case $command in
build)
    [ $# -gt 0 ] || set -- "${targets[@]}"
    build "$@"
    ;;
push) push "$@" ;;
*) fail "usage: docker/images.sh build [TARGET...] | push REGISTRY" 2 ;;
esac
