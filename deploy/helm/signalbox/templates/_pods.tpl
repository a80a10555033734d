{{/* What every pod of the chart has in common: Pod Security "restricted", to the letter. */}}

{{- define "signalbox.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "signalbox.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "signalbox.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
A pod that runs one command and ends: (dict "root" $ "service" name "kafka" bool "labels" dict "commands" (list (dict
"name" … "args" (list …))) "values" {serviceAccountName, resources}). All commands but the last are init containers, so
that one that fails keeps the next from beginning. It needs nothing that the chart itself makes.
*/}}
{{- define "signalbox.onceSpec" -}}
{{- $root := .root -}}
{{- $secrets := include "signalbox.secrets" (dict "root" .root "service" .service "kafka" .kafka "own" false) | fromYamlArray -}}
{{- $volume := include "signalbox.secretVolume" (dict "root" .root "secrets" $secrets) -}}
{{- $last := last .commands -}}
{{- $context := . -}}
restartPolicy: {{ .restartPolicy | default "Never" }}
serviceAccountName: {{ .values.serviceAccountName | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- include "signalbox.pullSecrets" .root }}
securityContext:
  {{- include "signalbox.podSecurity" .root | nindent 2 }}
{{- with .root.Values.defaults.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.defaults.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if gt (len .commands) 1 }}
initContainers:
  {{- range initial .commands }}
  {{- include "signalbox.onceContainer" (dict "root" $root "context" $context "command" . "secrets" $secrets "volume" $volume) | nindent 2 }}
  {{- end }}
{{- end }}
containers:
  {{- include "signalbox.onceContainer" (dict "root" $root "context" $context "command" $last "secrets" $secrets "volume" $volume) | nindent 2 }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: {{ .root.Values.tmpSize }}}
  {{- with $volume }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "signalbox.onceContainer" -}}
- name: {{ .command.name }}
  image: {{ include "signalbox.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  {{- with .command.command }}
  command: {{ toJson . }}
  {{- end }}
  args: {{ toJson .command.args }}
  env:
    {{- include "signalbox.placeEnv" (dict "root" .root "service" .context.service "kafka" .context.kafka) | nindent 4 }}
    {{- include "signalbox.secretEnv" (dict "root" .root "secrets" .secrets) | nindent 4 }}
  securityContext:
    {{- include "signalbox.containerSecurity" .root | nindent 4 }}
  resources:
    {{- toYaml .context.values.resources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- if .volume }}
    - {name: secrets, mountPath: /run/secrets/signalbox, readOnly: true}
    {{- end }}
{{- end -}}
