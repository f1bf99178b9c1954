#!/usr/bin/env bash
# Writes manifests/install.yaml: the chart with its own Postgres in the namespace pipelinejob-system, for people without Helm.
# Usage: scripts/render-install.sh [FILE]. The variable HELM names the program, helm by default.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
namespace=pipelinejob-system
file=${1:-manifests/install.yaml}

rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT
"${HELM:-helm}" template pipelinejob helm/pipelinejob --namespace "$namespace" --skip-tests \
    --set postgres.enabled=true --set postgres.existingSecret=pipelinejob-postgres >"$rendered"

{
    cat <<HEADER
# PipelineJob with a Postgres to try it with. Made by scripts/render-install.sh from helm/pipelinejob: do not edit.
#
#   kubectl apply --server-side -f manifests/install.yaml
#   password=\$(openssl rand -hex 24)
#   kubectl -n $namespace create secret generic pipelinejob-postgres --from-literal=password="\$password" \\
#       --from-literal=url="postgresql://pipelinejob:\$password@pipelinejob-postgres.$namespace.svc:5432/pipelinejob"
#
# No password is in this file: the pods wait for the Secret. For a database of your own, or other settings, take the chart.
---
apiVersion: v1
kind: Namespace
metadata:
  name: $namespace
  labels:
    pod-security.kubernetes.io/enforce: restricted
HEADER
    # Helm has no part in what kubectl applies.
    grep -vE '^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): ' "$rendered"
} >"$file"
