{{/*
The policy folder: a ConfigMap for each folder of it, each mounted where it belongs, one in the other. So a file that is added
or changed reaches the pods without a rollout; and every folder that a service sees is a real one. (In a single ConfigMap with
paths, a folder would be a link, and a change behind a link is not noticed.) None is mounted by subPath, which never changes.
*/}}

{{/* folder → file → text, as JSON: YAML would lose the last line end. The policy's own folder is the empty name. */}}
{{- define "signalbox.policyFolders" -}}
{{- $files := dict -}}
{{- if .Values.policy.example -}}
{{- range $path, $_ := .Files.Glob "files/policy/**" -}}
{{- $_ := set $files (trimPrefix "files/policy/" $path) ($.Files.Get $path) -}}
{{- end -}}
{{- end -}}
{{- range $path, $text := .Values.policy.files -}}
{{- $_ := set $files $path $text -}}
{{- end -}}
{{- $folders := dict "" dict -}}
{{- range $path, $text := $files -}}
{{- $folder := dir $path | trimPrefix "." -}}
{{- $_ := set $folders $folder (merge (dict (base $path) $text) (get $folders $folder | default dict)) -}}
{{- end -}}
{{- toJson $folders -}}
{{- end -}}

{{/* A folder as the end of an object's name: templates/pt_BR → -templates-pt-br */}}
{{- define "signalbox.policySlug" -}}
{{- if . -}}-{{ lower . | replace "/" "-" | replace "_" "-" }}{{- end -}}
{{- end -}}

{{/* [{name, path}] of the ConfigMaps that are mounted, the operator's or ours, as JSON. */}}
{{- define "signalbox.policyMaps" -}}
{{- $maps := list -}}
{{- if .Values.policy.configMaps -}}
{{- range .Values.policy.configMaps -}}
{{- $maps = append $maps (dict "name" .name "path" (.path | default "")) -}}
{{- end -}}
{{- else -}}
{{- range $folder := include "signalbox.policyFolders" . | fromJson | keys | sortAlpha -}}
{{- $maps = append $maps (dict "name" (printf "%s-policy%s" (include "signalbox.fullname" $) (include "signalbox.policySlug" $folder)) "path" $folder) -}}
{{- end -}}
{{- end -}}
{{- toJson $maps -}}
{{- end -}}

{{- define "signalbox.policyVolumes" -}}
{{- range $one := include "signalbox.policyMaps" . | fromJsonArray }}
- name: policy{{ include "signalbox.policySlug" $one.path }}
  configMap: {name: {{ $one.name }}}
{{- end }}
{{- end -}}

{{- define "signalbox.policyMounts" -}}
{{- range $one := include "signalbox.policyMaps" . | fromJsonArray }}
- {name: policy{{ include "signalbox.policySlug" $one.path }}, mountPath: {{ printf "/etc/signalbox/policy/%s" $one.path | trimSuffix "/" }}, readOnly: true}
{{- end }}
{{- end -}}
