{{/*
How a process reaches Kafka and PostgreSQL, and where its secrets come from.

signalbox.kafka: (dict "root" $ "service" name) → YAML of where, how and as whom. With Strimzi a service is its own user
there, and the Secrets are those that Strimzi makes; without it, what `kafka` in the values says.
*/}}
{{- define "signalbox.kafka" -}}
{{- $v := .root.Values -}}
{{- $k := $v.kafka -}}
{{- $found := dict "bootstrap" $k.bootstrapServers "protocol" $k.securityProtocol "ca" $k.ca.secret "caKey" $k.ca.key "client" $k.client.secret "certificateKey" $k.client.certificateKey "keyKey" $k.client.keyKey "keyPasswordKey" $k.client.passwordKey "mechanism" $k.sasl.mechanism "username" $k.sasl.username "password" $k.sasl.secret "passwordKey" $k.sasl.passwordKey -}}
{{- if include "signalbox.strimzi" .root -}}
{{- $s := $v.strimzi -}}
{{- $space := $s.namespace | default .root.Release.Namespace -}}
{{- if not $k.bootstrapServers -}}
{{- $_ := set $found "bootstrap" (printf "%s-kafka-bootstrap.%s.svc:%v" $s.cluster $space $s.port) -}}
{{- end -}}
{{- if $s.users.create -}}
{{- $user := printf "%s-%s" (include "signalbox.fullname" .root) .service -}}
{{- if not $k.ca.secret -}}
{{- $_ := set $found "ca" (printf "%s-cluster-ca-cert" $s.cluster) -}}
{{- end -}}
{{- if eq $s.users.authentication "tls" -}}
{{- $_ := mergeOverwrite $found (dict "protocol" "SSL" "client" $user "certificateKey" "user.crt" "keyKey" "user.key" "keyPasswordKey" "") -}}
{{- else -}}
{{- $_ := mergeOverwrite $found (dict "protocol" "SASL_SSL" "mechanism" "SCRAM-SHA-512" "username" $user "password" $user "passwordKey" "password" "client" "") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/*
signalbox.secrets: (dict "root" $ "service" name "kafka" bool "own" bool) → YAML list of what is read from Secrets.
`is` is `value` for a secret that may also be an environment variable, and `file` for what a setting names as a path.
*/}}
{{- define "signalbox.secrets" -}}
{{- $v := .root.Values -}}
{{- $all := list -}}
{{- if and $v.database.secret (not $v.database.url) -}}
{{- $all = append $all (dict "name" "SIGNALBOX_DATABASE_URL" "secret" $v.database.secret "key" $v.database.urlKey "path" "database/url" "is" "value") -}}
{{- else if $v.database.secret -}}
{{- $all = append $all (dict "name" "SIGNALBOX_DATABASE_PASSWORD" "secret" $v.database.secret "key" $v.database.passwordKey "path" "database/password" "is" "value") -}}
{{- end -}}
{{- if $v.database.ca.secret -}}
{{- $all = append $all (dict "name" "SIGNALBOX_DATABASE_CA_FILE" "secret" $v.database.ca.secret "key" $v.database.ca.key "path" "database/ca.crt" "is" "file") -}}
{{- end -}}
{{- if $v.database.client.secret -}}
{{- $all = append $all (dict "name" "SIGNALBOX_DATABASE_CERTIFICATE_FILE" "secret" $v.database.client.secret "key" $v.database.client.certificateKey "path" "database/client.crt" "is" "file") -}}
{{- $all = append $all (dict "name" "SIGNALBOX_DATABASE_KEY_FILE" "secret" $v.database.client.secret "key" $v.database.client.keyKey "path" "database/client.key" "is" "file") -}}
{{- end -}}
{{- if .kafka -}}
{{- $k := include "signalbox.kafka" . | fromYaml -}}
{{- if hasSuffix "SSL" $k.protocol -}}
{{- if $k.ca -}}
{{- $all = append $all (dict "name" "SIGNALBOX_KAFKA_CA_FILE" "secret" $k.ca "key" $k.caKey "path" "kafka/ca.crt" "is" "file") -}}
{{- end -}}
{{- if $k.client -}}
{{- $all = append $all (dict "name" "SIGNALBOX_KAFKA_CERTIFICATE_FILE" "secret" $k.client "key" $k.certificateKey "path" "kafka/client.crt" "is" "file") -}}
{{- $all = append $all (dict "name" "SIGNALBOX_KAFKA_KEY_FILE" "secret" $k.client "key" $k.keyKey "path" "kafka/client.key" "is" "file") -}}
{{- if $k.keyPasswordKey -}}
{{- $all = append $all (dict "name" "SIGNALBOX_KAFKA_KEY_PASSWORD" "secret" $k.client "key" $k.keyPasswordKey "path" "kafka/client.password" "is" "value") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if hasPrefix "SASL_" $k.protocol -}}
{{- $all = append $all (dict "name" "SIGNALBOX_KAFKA_PASSWORD" "secret" $k.password "key" $k.passwordKey "path" "kafka/password" "is" "value") -}}
{{- end -}}
{{- end -}}
{{- if and .own (has .service (list "ingest" "notifier")) -}}
{{- $all = append $all (dict "name" "SIGNALBOX_TOKEN_SECRET" "secret" $v.tokenSecret.secret "key" $v.tokenSecret.key "path" "token" "is" "value") -}}
{{- end -}}
{{- if and .own (eq .service "notifier") $v.smtp.secret -}}
{{- $all = append $all (dict "name" "SIGNALBOX_SMTP_PASSWORD" "secret" $v.smtp.secret "key" $v.smtp.passwordKey "path" "smtp/password" "is" "value") -}}
{{- end -}}
{{- if and .own (eq .service "ingest") $v.mail.enabled $v.mail.certificate.secret -}}
{{- $all = append $all (dict "name" "SIGNALBOX_SMTP_CERTIFICATE" "secret" $v.mail.certificate.secret "key" $v.mail.certificate.key "path" "mail/certificate.pem" "is" "file") -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* Environment of those secrets: (dict "root" $ "secrets" list) */}}
{{- define "signalbox.secretEnv" -}}
{{- $as := .root.Values.secretsAs -}}
{{- range .secrets }}
{{- if and (eq .is "value") (eq $as "env") }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}
{{- else }}
- name: {{ .name }}{{ if eq .is "value" }}_FILE{{ end }}
  value: /run/secrets/signalbox/{{ .path }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The volume of those that are mounted, or nothing: (dict "root" $ "secrets" list) */}}
{{- define "signalbox.secretVolume" -}}
{{- $as := .root.Values.secretsAs -}}
{{- $mounted := list -}}
{{- range .secrets -}}
{{- if or (eq .is "file") (eq $as "files") -}}{{- $mounted = append $mounted . -}}{{- end -}}
{{- end -}}
{{- if $mounted }}
- name: secrets
  projected:
    # The group's alone: the pod's fsGroup, so the user that runs here.
    defaultMode: 0440
    sources:
      {{- range $mounted }}
      - secret:
          name: {{ .secret }}
          items:
            - {key: {{ .key }}, path: {{ .path }}}
      {{- end }}
{{- end }}
{{- end -}}

{{/* Where Kafka and PostgreSQL are, without what is secret: (dict "root" $ "service" name "kafka" bool) */}}
{{- define "signalbox.placeEnv" -}}
{{- $v := .root.Values -}}
{{- $k := include "signalbox.kafka" . | fromYaml -}}
- {name: SIGNALBOX_KAFKA, value: {{ $k.bootstrap | quote }}}
{{- if and .kafka (ne $k.protocol "PLAINTEXT") }}
- {name: SIGNALBOX_KAFKA_SECURITY_PROTOCOL, value: {{ $k.protocol }}}
{{- if hasPrefix "SASL_" $k.protocol }}
- {name: SIGNALBOX_KAFKA_SASL_MECHANISM, value: {{ $k.mechanism }}}
- {name: SIGNALBOX_KAFKA_USERNAME, value: {{ $k.username | quote }}}
{{- end }}
{{- end }}
{{- if $v.database.url }}
- {name: SIGNALBOX_DATABASE_URL, value: {{ $v.database.url | quote }}}
{{- end }}
{{- if $v.database.sslmode }}
- {name: SIGNALBOX_DATABASE_SSLMODE, value: {{ $v.database.sslmode }}}
{{- end }}
- {name: SIGNALBOX_PARTITIONS, value: {{ $v.partitions | int | quote }}}
{{- with $v.topicPrefix }}
- {name: SIGNALBOX_TOPIC_PREFIX, value: {{ . | quote }}}
{{- end }}
- {name: SIGNALBOX_WORKSPACE, value: {{ $v.workspace | quote }}}
- {name: SIGNALBOX_LOG_FORMAT, value: {{ $v.log.format }}}
- {name: SIGNALBOX_LOG_LEVEL, value: {{ $v.log.level }}}
{{- end -}}

{{/* Settings of a service beyond that: (dict "root" $ "service" name "part" name "values" part's values) */}}
{{- define "signalbox.serviceEnv" -}}
{{- $v := .root.Values -}}
- {name: SIGNALBOX_POLICY, value: /etc/signalbox/policy}
- {name: SIGNALBOX_HTTP_HOST, value: {{ $v.listen | quote }}}
- {name: SIGNALBOX_HTTP_PORT, value: "9100"}
- {name: SIGNALBOX_GRACE_SECONDS, value: {{ .values.graceSeconds | quote }}}
- {name: SIGNALBOX_DATABASE_POOL, value: {{ $v.database.pool | int | quote }}}
{{- with $v.publicUrl }}
- {name: SIGNALBOX_PUBLIC_URL, value: {{ . | quote }}}
{{- end }}
{{- with $v.otlpEndpoint }}
- {name: SIGNALBOX_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if eq .service "ingest" }}
- {name: SIGNALBOX_ATTACHMENTS_URL, value: {{ ternary "/var/lib/signalbox/attachments" $v.attachments.url (ne $v.attachments.persistentVolumeClaim "") | quote }}}
{{- end }}
{{- if eq .part "gateway" }}
- {name: SIGNALBOX_GATEWAY_HOST, value: {{ $v.listen | quote }}}
- {name: SIGNALBOX_GATEWAY_PORT, value: "8080"}
- {name: SIGNALBOX_SMTP_ENABLED, value: {{ $v.mail.enabled | quote }}}
{{- if $v.mail.enabled }}
- {name: SIGNALBOX_SMTP_LISTEN_PORT, value: "8025"}
- {name: SIGNALBOX_SMTP_HOSTNAME, value: {{ $v.mail.hostname | quote }}}
{{- end }}
{{- with $v.forwardedAllowIps }}
- {name: FORWARDED_ALLOW_IPS, value: {{ . | quote }}}
{{- end }}
{{- with $v.oidc.issuer }}
- {name: SIGNALBOX_OIDC_ISSUER, value: {{ . | quote }}}
- {name: SIGNALBOX_OIDC_AUDIENCE, value: {{ $v.oidc.audience | quote }}}
{{- end }}
{{- with $v.oidc.keysUrl }}
- {name: SIGNALBOX_OIDC_KEYS_URL, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if eq .service "notifier" }}
- {name: SIGNALBOX_SMTP_HOST, value: {{ $v.smtp.host | quote }}}
- {name: SIGNALBOX_SMTP_PORT, value: {{ $v.smtp.port | int | quote }}}
- {name: SIGNALBOX_SMTP_TLS, value: {{ $v.smtp.tls }}}
{{- with $v.smtp.user }}
- {name: SIGNALBOX_SMTP_USER, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- range $name, $value := $v.settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end -}}
