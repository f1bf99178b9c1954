#!/usr/bin/env bash
# No file of the project names a package registry's host or a path of somebody's machine.
# The patterns are put together from pieces, so that this file does not hold what it looks for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dot='\.'
hosts="pypi${dot}org|pypi${dot}python|python""hosted${dot}org|registry${dot}npm""js|npm""js${dot}(com|org)|(^|[^a-z])crates${dot}io"
hosts+="|proxy${dot}go""lang|repo1?${dot}maven|maven""central|deb${dot}debian|archive${dot}ubuntu|conda${dot}anaconda"
# An absolute path that begins in a home or in a place of work; not one that goes on from something else, as in example.com/home/.
paths="(^|[^[:alnum:]_.~)}*>/-])/(work|root|home|Users|opt/wheels)/[[:alnum:]_.]"

search=(git grep --untracked)
git rev-parse --is-inside-work-tree >/dev/null 2>&1 || search=(git grep --no-index --exclude-standard)

found=0
for pattern in "$hosts" "$paths"; do
    if "${search[@]}" -nIE -e "$pattern" -- .; then found=1; fi
done
if [ "$found" -ne 0 ]; then
    echo "check-tree: the lines above name a package registry's host or a machine's path" >&2
    exit 1
fi
echo "check-tree: no registry hosts, no machine paths"
