{{/* Names and labels. A selector is immutable in Kubernetes: what stands in signalbox.selector never changes. */}}

{{- define "signalbox.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "signalbox.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "signalbox.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "signalbox.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What every object of the release has; `.` is the root. */}}
{{- define "signalbox.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "signalbox.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: signalbox
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata.labels and annotations of an object: (dict "root" $ "labels" (dict …) "annotations" (dict …)) */}}
{{- define "signalbox.meta" -}}
labels:
  {{- include "signalbox.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The pods of one part: (dict "root" $ "part" name) */}}
{{- define "signalbox.selector" -}}
app.kubernetes.io/name: {{ include "signalbox.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
signalbox/part: {{ .part }}
{{- end -}}

{{- define "signalbox.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* What the product says of itself; see deploy/helm/topology.py. */}}
{{- define "signalbox.topology" -}}
{{- .Files.Get "files/topology.json" -}}
{{- end -}}

{{/* A part's values over the defaults, as YAML: (dict "root" $ "part" name) */}}
{{- define "signalbox.part" -}}
{{- mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy (index .root.Values.parts .part | default dict)) | toYaml -}}
{{- end -}}

{{/* "true" where the cluster knows an API version, or the values say to count on it: (dict "root" $ "api" version) */}}
{{- define "signalbox.has" -}}
{{- if or (.root.Capabilities.APIVersions.Has .api) (has .api .root.Values.assumeApiVersions) -}}true{{- end -}}
{{- end -}}

{{- define "signalbox.strimzi" -}}
{{- if and .Values.strimzi.enabled (include "signalbox.has" (dict "root" . "api" .Values.strimzi.apiVersion)) -}}true{{- end -}}
{{- end -}}

{{- define "signalbox.keda" -}}
{{- include "signalbox.has" (dict "root" . "api" "keda.sh/v1alpha1") -}}
{{- end -}}

{{- define "signalbox.operator" -}}
{{- include "signalbox.has" (dict "root" . "api" "monitoring.coreos.com/v1") -}}
{{- end -}}

{{/* What scales a part here and now: hpa, keda, or nothing: (dict "root" $ "values" part's values) */}}
{{- define "signalbox.scaler" -}}
{{- $kind := .values.autoscaling.kind -}}
{{- if eq $kind "hpa" -}}hpa{{- else if and (eq $kind "keda") (include "signalbox.keda" .root) -}}keda{{- end -}}
{{- end -}}

{{- define "signalbox.serviceAccount" -}}
{{- $own := printf "%s-%s" (include "signalbox.fullname" .root) .part -}}
{{- if .values.serviceAccount.create -}}{{ .values.serviceAccount.name | default $own }}{{- else -}}{{ .values.serviceAccount.name | default "default" }}{{- end -}}
{{- end -}}
