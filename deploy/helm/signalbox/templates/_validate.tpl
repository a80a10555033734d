{{/*
What no schema can say: values that do not fit together, or do not fit what is installed. All of it is told at once, a
sentence each, and nothing is rendered.
*/}}
{{- define "signalbox.validate" -}}
{{- $v := .Values -}}
{{- $topology := include "signalbox.topology" . | fromJson -}}
{{- $said := list -}}
{{- $strimzi := include "signalbox.strimzi" . -}}

{{- if not (or $v.kafka.bootstrapServers $strimzi) -}}
{{- if $v.strimzi.enabled -}}
{{- $said = append $said (printf "strimzi.enabled: this cluster has no %s. Install Strimzi first, or say where another Kafka is in kafka.bootstrapServers." $v.strimzi.apiVersion) -}}
{{- else -}}
{{- $said = append $said "kafka.bootstrapServers: say where Kafka is, as host:port with commas between; the chart brings none." -}}
{{- end -}}
{{- end -}}
{{- if and $v.strimzi.enabled (not $v.strimzi.cluster) -}}
{{- $said = append $said "strimzi.cluster: name the Kafka resource that topics and users belong to." -}}
{{- end -}}
{{- if not (and $strimzi $v.strimzi.users.create) -}}
{{- if and (hasPrefix "SASL_" $v.kafka.securityProtocol) (not (and $v.kafka.sasl.username $v.kafka.sasl.secret)) -}}
{{- $said = append $said (printf "kafka.securityProtocol: %s needs kafka.sasl.username and kafka.sasl.secret." $v.kafka.securityProtocol) -}}
{{- end -}}
{{- if and (not (hasSuffix "SSL" $v.kafka.securityProtocol)) (or $v.kafka.ca.secret $v.kafka.client.secret) -}}
{{- $said = append $said (printf "kafka.securityProtocol: %s is not encrypted, so kafka.ca and kafka.client would not be used; set it to SSL or SASL_SSL, or take them away." $v.kafka.securityProtocol) -}}
{{- end -}}
{{- end -}}

{{- if not (or $v.database.secret $v.database.url) -}}
{{- $said = append $said "database.secret: name a Secret with the address of PostgreSQL 17 or newer; the chart brings none." -}}
{{- end -}}
{{- if regexMatch "://[^/@]*:[^/@]+@" $v.database.url -}}
{{- $said = append $said "database.url: holds a password. Leave it out there and name the Secret that has it in database.secret." -}}
{{- end -}}
{{- if and (hasPrefix "verify" $v.database.sslmode) (not $v.database.ca.secret) -}}
{{- $said = append $said (printf "database.sslmode: %s needs database.ca.secret." $v.database.sslmode) -}}
{{- end -}}
{{- if not $v.tokenSecret.secret -}}
{{- $said = append $said "tokenSecret.secret: name a Secret with the key of reply tokens; make one with `kubectl create secret generic signalbox-token --from-literal=token=$(openssl rand -hex 32)`." -}}
{{- end -}}
{{- if and $v.smtp.user (not $v.smtp.secret) -}}
{{- $said = append $said "smtp.user: needs smtp.secret, the Secret with its password." -}}
{{- end -}}
{{- if and $v.smtp.secret (eq $v.smtp.tls "none") -}}
{{- $said = append $said "smtp.tls: `none` would send the password in clear; set it to starttls or tls." -}}
{{- end -}}
{{- if and $v.oidc.issuer (not $v.oidc.audience) -}}
{{- $said = append $said "oidc.issuer: needs oidc.audience; without it a token made for anybody would open the gateway." -}}
{{- end -}}

{{- if not (or $v.policy.files $v.policy.configMaps $v.policy.example) -}}
{{- $said = append $said "policy: say which one, as policy.files or policy.configMaps; policy.example=true takes the lamp shop's, to look around." -}}
{{- end -}}
{{- if and $v.policy.configMaps (or $v.policy.files $v.policy.example) -}}
{{- $said = append $said "policy: configMaps stand alone; leave out files and example." -}}
{{- end -}}
{{- if and $v.policy.configMaps (eq $v.policy.onChange "restart") -}}
{{- $said = append $said "policy.onChange: restart needs policy.files; a change of ConfigMaps of your own is not seen by the chart." -}}
{{- end -}}
{{- if not $v.policy.configMaps -}}
{{- $slugs := dict -}}
{{- range $folder, $files := include "signalbox.policyFolders" . | fromJson -}}
{{- $slug := include "signalbox.policySlug" $folder -}}
{{- if hasKey $slugs $slug -}}
{{- $said = append $said (printf "policy.files: the folders %s and %s would be one ConfigMap; rename one." (get $slugs $slug) $folder) -}}
{{- end -}}
{{- $_ := set $slugs $slug $folder -}}
{{- if not (regexMatch "^(-[a-z0-9]+)*$" $slug) -}}
{{- $said = append $said (printf "policy.files: no object of Kubernetes can be named after the folder %s; letters, digits, - and _ alone." $folder) -}}
{{- end -}}
{{- range $file, $_ := $files -}}
{{- if not (regexMatch "^[-._a-zA-Z0-9]+$" $file) -}}
{{- $said = append $said (printf "policy.files: no ConfigMap can hold a file %s; letters, digits, -, _ and . alone." $file) -}}
{{- end -}}
{{- end -}}
{{- if gt (len (toJson $files)) 1000000 -}}
{{- $said = append $said (printf "policy.files: the folder %s is more than a ConfigMap holds (1 MiB)." ($folder | default "itself")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $paths := dict -}}
{{- range $v.policy.configMaps -}}
{{- $slug := include "signalbox.policySlug" (.path | default "") -}}
{{- if hasKey $paths $slug -}}
{{- $said = append $said (printf "policy.configMaps: %s and %s are for the same folder." (get $paths $slug) .name) -}}
{{- end -}}
{{- $_ := set $paths $slug .name -}}
{{- end -}}

{{- range $name, $_ := $v.settings -}}
{{- if has $name $topology.secrets -}}
{{- $said = append $said (printf "settings.%s: is a secret; it belongs into a Secret and is named under its own key of the values." $name) -}}
{{- else if not (has $name $topology.settings) -}}
{{- $said = append $said (printf "settings.%s: there is no such setting; docs/settings.md lists them." $name) -}}
{{- else if has $name (list "SIGNALBOX_KAFKA" "SIGNALBOX_PARTITIONS" "SIGNALBOX_TOPIC_PREFIX" "SIGNALBOX_WORKSPACE" "SIGNALBOX_POLICY" "SIGNALBOX_HTTP_HOST" "SIGNALBOX_HTTP_PORT" "SIGNALBOX_GATEWAY_HOST" "SIGNALBOX_GATEWAY_PORT" "SIGNALBOX_SMTP_ENABLED" "SIGNALBOX_SMTP_LISTEN_PORT" "SIGNALBOX_GRACE_SECONDS" "SIGNALBOX_DATABASE_POOL" "SIGNALBOX_ATTACHMENTS_URL") -}}
{{- $said = append $said (printf "settings.%s: the chart sets it; change the value that it comes from." $name) -}}
{{- end -}}
{{- end -}}

{{- $partitions := int $v.partitions -}}
{{- range $part, $_ := $v.parts -}}
{{- if not (hasKey $topology.parts $part) -}}
{{- $said = append $said (printf "parts.%s: there is no such part; there are %s." $part (keys $topology.parts | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- range $part, $about := $topology.parts -}}
{{- $p := include "signalbox.part" (dict "root" $ "part" $part) | fromYaml -}}
{{- $a := $p.autoscaling -}}
{{- if and $p.enabled (gt (int $a.min) (int $a.max)) -}}
{{- $said = append $said (printf "parts.%s.autoscaling: min %d is more than max %d." $part (int $a.min) (int $a.max)) -}}
{{- end -}}
{{- if $p.enabled -}}
{{- if $about.stages -}}
{{- if and (ne $a.kind "none") (gt (int $a.max) $partitions) -}}
{{- $said = append $said (printf "parts.%s.autoscaling.max: %d processes for %d partitions; one more than partitions has nothing to do." $part (int $a.max) $partitions) -}}
{{- end -}}
{{- if and (eq $a.kind "none") (gt (int $p.replicas) $partitions) -}}
{{- $said = append $said (printf "parts.%s.replicas: %d processes for %d partitions; one more than partitions has nothing to do." $part (int $p.replicas) $partitions) -}}
{{- end -}}
{{- if eq $a.kind "hpa" -}}
{{- $said = append $said (printf "parts.%s.autoscaling.kind: it reads topics, and lag says more than CPU: keda or none." $part) -}}
{{- end -}}
{{- else -}}
{{- if eq $a.kind "keda" -}}
{{- $said = append $said (printf "parts.%s.autoscaling.kind: it reads no topic and has no lag: hpa or none." $part) -}}
{{- end -}}
{{- if and (eq $a.kind "hpa") (not (dig "requests" "cpu" "" $p.resources)) -}}
{{- $said = append $said (printf "parts.%s.resources.requests.cpu: the autoscaler's percentage is of that; say how much." $part) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- $said = append $said "ingress.host: say under which name the gateway is reached." -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- $said = append $said "httpRoute.parentRefs: name the Gateway that the route belongs to." -}}
{{- end -}}
{{- if and $strimzi $v.strimzi.topics.create (gt (int $v.strimzi.topics.minInsyncReplicas) (int $v.strimzi.topics.replicas)) -}}
{{- $said = append $said (printf "strimzi.topics.minInsyncReplicas: %d copies in sync of %d; nothing could be written." (int $v.strimzi.topics.minInsyncReplicas) (int $v.strimzi.topics.replicas)) -}}
{{- end -}}

{{- /* Where the cluster can be asked. Without that, the immutable ConfigMap and `signalbox topics check` refuse it. */ -}}
{{- $before := lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-installation" (include "signalbox.fullname" .)) -}}
{{- if $before -}}
{{- range $key, $now := dict "partitions" (toString $partitions) "topicPrefix" $v.topicPrefix "workspace" $v.workspace -}}
{{- $was := index $before.data $key -}}
{{- if ne $was $now -}}
{{- $said = append $said (printf "%s: this installation has %q, and it is fixed for its life; %q would send customers' events where nobody reads them in order." $key $was $now) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $strimzi $v.strimzi.topics.create -}}
{{- $topic := lookup $v.strimzi.apiVersion "KafkaTopic" ($v.strimzi.namespace | default .Release.Namespace) (printf "%s-inbound" (include "signalbox.fullname" .)) -}}
{{- if $topic -}}
{{- if ne (int $topic.spec.partitions) $partitions -}}
{{- $said = append $said (printf "partitions: the topics have %d, and the number is fixed for the installation's life; %d would send a customer's events to two processes." (int $topic.spec.partitions) $partitions) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if $said -}}
{{- fail (printf "\n\nThis cannot be installed:\n\n  - %s\n" (join "\n  - " (uniq $said))) -}}
{{- end -}}
{{- end -}}
