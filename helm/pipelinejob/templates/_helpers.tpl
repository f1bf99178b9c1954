{{- define "pipelinejob.name" -}}
{{- .Values.nameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* What a pod is found by: (list . "operator") */ -}}
{{- define "pipelinejob.selector" -}}
app.kubernetes.io/name: pipelinejob-operator
app.kubernetes.io/instance: {{ include "pipelinejob.name" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "pipelinejob.labels" -}}
{{- $ := index . 0 -}}
{{ include "pipelinejob.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ $.Chart.Name }}-{{ $.Chart.Version }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Nothing that every release of the chart changes: a pod is not replaced for a label. */ -}}
{{- define "pipelinejob.podLabels" -}}
{{ include "pipelinejob.selector" . }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pipelinejob.metadata" -}}
name: {{ include "pipelinejob.name" (index . 0) }}-{{ index . 1 }}
namespace: {{ (index . 0).Release.Namespace }}
labels: {{- include "pipelinejob.labels" . | nindent 2 }}
{{- end -}}

{{- define "pipelinejob.operatorImage" -}}
{{ .Values.image.operator | default (printf "pipelinejob-operator:%s" .Chart.AppVersion) }}
{{- end -}}

{{- define "pipelinejob.workerImage" -}}
{{ .Values.image.worker | default (printf "pipelinejob-worker:%s" .Chart.AppVersion) }}
{{- end -}}

{{- define "pipelinejob.gatewayImage" -}}
{{ .Values.image.gateway | default (printf "pipelinejob-gateway:%s" .Chart.AppVersion) }}
{{- end -}}

{{- define "pipelinejob.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (printf "%s-operator" (include "pipelinejob.name" .)) }}
{{- end -}}

{{- define "pipelinejob.postgresSecret" -}}
{{ .Values.postgres.existingSecret | default (printf "%s-postgres" (include "pipelinejob.name" .)) }}
{{- end -}}

{{- /* Every container of the chart that speaks to the database knows it by this one variable. */ -}}
{{- define "pipelinejob.databaseEnv" -}}
- name: PIPELINEJOB_DATABASE_URL
  valueFrom:
    secretKeyRef:
      {{- if .Values.postgres.enabled }}
      name: {{ include "pipelinejob.postgresSecret" . }}
      key: url
      {{- else }}
      name: {{ .Values.database.existingSecret }}
      key: {{ .Values.database.existingSecretKey }}
      {{- end }}
{{- end -}}

{{- define "pipelinejob.tracingEnv" -}}
{{- with (.Values.tracing).endpoint -}}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ quote . }}}
{{- end }}
{{- end -}}

{{- define "pipelinejob.workerDatabase" -}}
{{- if .Values.pgbouncer.enabled -}}
{{ include "pipelinejob.name" . }}-pgbouncer.{{ .Release.Namespace }}.svc:6432
{{- else -}}
{{ .Values.database.workerUrl }}
{{- end -}}
{{- end -}}

{{- /* What worker pods may reach: the database where it is a pod of ours, else its port anywhere. */ -}}
{{- define "pipelinejob.workerNetwork" -}}
{{- $database := dict }}
{{- if or .Values.pgbouncer.enabled (and .Values.postgres.enabled (not .Values.database.workerUrl)) }}
{{- $labels := include "pipelinejob.selector" (list . (ternary "pgbouncer" "postgres" .Values.pgbouncer.enabled)) | fromYaml }}
{{- $database = dict "namespace" .Release.Namespace "labels" $labels }}
{{- end }}
{{- dict "database" $database "egress" (.Values.networkPolicy.egress | default list) | toJson }}
{{- end -}}

{{- define "pipelinejob.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "pipelinejob.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* What the schema cannot say. */ -}}
{{- define "pipelinejob.check" -}}
{{- if and (not .Values.postgres.enabled) (not .Values.database.existingSecret) }}
{{- fail "no database: set postgres.enabled=true to try things out with a Postgres in the cluster, or database.existingSecret=<name of a Secret whose key 'url' is a postgresql:// URL>" }}
{{- end }}
{{- if and .Values.postgres.enabled .Values.database.existingSecret }}
{{- fail "two databases: set either postgres.enabled=true or database.existingSecret, not both" }}
{{- end }}
{{- $seen := dict }}
{{- range .Values.gateway.dataNamespaces }}
{{- if hasKey $seen .namespace }}
{{- fail (printf "gateway.dataNamespaces: the namespace %s stands twice: list all its claims in one entry" .namespace) }}
{{- end }}
{{- $_ := set $seen .namespace true }}
{{- end }}
{{- if .Values.pgbouncer.enabled }}
{{- if not .Values.postgres.enabled }}
{{- fail "pgbouncer.enabled goes with postgres.enabled: for a database of your own, set database.workerUrl to the host:port of your pooler" }}
{{- end }}
{{- if not .Values.pgbouncer.image }}
{{- fail "pgbouncer.image is needed: name an image with pgbouncer and sh on its PATH" }}
{{- end }}
{{- if .Values.database.workerUrl }}
{{- fail "two ways for the workers to the database: set either pgbouncer.enabled=true or database.workerUrl, not both" }}
{{- end }}
{{- end }}
{{- end -}}
