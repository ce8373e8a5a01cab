{{- define "dwell.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "dwell.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "dwell.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "dwell.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "dwell.peers" -}}
{{- printf "%s-peers" (include "dwell.fullname" .) -}}
{{- end -}}

{{/* What pods are reached by, with a gap for their number. */}}
{{- define "dwell.host" -}}
{{- printf "%s-{ordinal}.%s.%s.svc.%s" (include "dwell.fullname" .) (include "dwell.peers" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}

{{- define "dwell.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "dwell.selector" -}}
app.kubernetes.io/name: {{ include "dwell.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dwell.labels" -}}
{{ include "dwell.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "dwell.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "dwell.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "dwell.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{- printf "%s-tls" (include "dwell.fullname" .) -}}
{{- else -}}
{{- required "tls.existingSecret names the secret with tls.crt, tls.key and ca.crt, or tls.certManager.enabled asks for one" .Values.tls.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* How what runs in the pods calls the cluster. A user that clientEnv names comes with a password of his own: beside the file with
the first user's, it would not be looked at. */}}
{{- define "dwell.clientEnv" -}}
{{- $named := list -}}
{{- range .Values.clientEnv -}}
{{- $named = append $named .name -}}
{{- end -}}
{{- if .Values.tls.enabled }}
- name: DWELL_TLS_CA
  value: /etc/dwell/tls/ca.crt
- name: DWELL_TLS_CERTIFICATE
  value: /etc/dwell/tls/tls.crt
- name: DWELL_TLS_KEY
  value: /etc/dwell/tls/tls.key
{{- end }}
{{- if and .Values.authentication.enabled (not (has "DWELL_USER" $named)) }}
- name: DWELL_USER
  value: {{ .Values.authentication.initialUser | quote }}
- name: DWELL_PASSWORD_FILE
  value: /etc/dwell/credentials/password
{{- end }}
{{- with .Values.clientEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What that takes, as directories: what is renewed appears in them. */}}
{{- define "dwell.clientMounts" -}}
{{- if .Values.tls.enabled }}
- name: tls
  mountPath: /etc/dwell/tls
  readOnly: true
{{- end }}
{{- if .Values.authentication.enabled }}
- name: credentials
  mountPath: /etc/dwell/credentials
  readOnly: true
{{- end }}
{{- end -}}

{{- define "dwell.clientVolumes" -}}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "dwell.tlsSecret" . }}
    defaultMode: 0440
{{- end }}
{{- if .Values.authentication.enabled }}
- name: credentials
  secret:
    secretName: {{ required "authentication.passwordSecret.name names the secret with the first user's password" .Values.authentication.passwordSecret.name }}
    defaultMode: 0440
    items:
      - key: {{ .Values.authentication.passwordSecret.key }}
        path: password
{{- end }}
{{- end -}}

{{- define "dwell.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
# Of a large volume this takes long, and is needed once.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "dwell.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What cannot work is said when it is rendered. */}}
{{- define "dwell.check" -}}
{{- if and .Release.IsInstall (lt (int .Values.replicaCount) (int .Values.founders)) -}}
{{- fail (printf "founders: all %v of them must run for the cluster to form, and replicaCount is %v" .Values.founders .Values.replicaCount) -}}
{{- end -}}
{{- if and (gt (int .Values.replicaCount) 1) (eq (int .Values.founders) 1) -}}
{{- fail "founders: a cluster of several pods needs at least 3: the only founder, if it lost its data, could form a second cluster while the others are away" -}}
{{- end -}}
{{- $needed := add .Values.lifecycle.withdrawalSeconds 20 (div (int (default 10000 .Values.config.stop_timeout_ms)) 1000) -}}
{{- if lt (int .Values.lifecycle.terminationGracePeriodSeconds) (int $needed) -}}
{{- fail (printf "lifecycle.terminationGracePeriodSeconds: must be at least %v: handing over (20), lifecycle.withdrawalSeconds and config.stop_timeout_ms" $needed) -}}
{{- end -}}
{{- $named := list -}}
{{- range .Values.clientEnv -}}
{{- $named = append $named .name -}}
{{- end -}}
{{- range $key := list "DWELL_SERVER" "DWELL_TLS_CA" "DWELL_TLS_CERTIFICATE" "DWELL_TLS_KEY" "DWELL_PASSWORD_FILE" "DWELL_TOKEN_FILE" -}}
{{- if has $key $named -}}
{{- fail (printf "clientEnv: %s: the chart decides it" $key) -}}
{{- end -}}
{{- end -}}
{{- if ne (has "DWELL_USER" $named) (has "DWELL_PASSWORD" $named) -}}
{{- fail "clientEnv: DWELL_USER and DWELL_PASSWORD belong together" -}}
{{- end -}}
{{- if and .Values.authentication.enabled (not .Values.tls.enabled) -}}
{{- fail "authentication.enabled: passwords would be sent in plain text: tls.enabled, too" -}}
{{- end -}}
{{- with .Values.authentication.jwks -}}
{{- if and .configMap (not $.Values.authentication.enabled) -}}
{{- fail "authentication.jwks: is of no use without authentication.enabled" -}}
{{- end -}}
{{- if and (or .issuer .audience) (not .configMap) -}}
{{- fail "authentication.jwks: issuer and audience are of no use without configMap" -}}
{{- end -}}
{{- if and .configMap (not (and .issuer .audience)) -}}
{{- fail "authentication.jwks: issuer and audience say whose tokens are taken, and that they are for this cluster" -}}
{{- end -}}
{{- end -}}
{{- range $key := list "node_id" "data_dir" "client_address" "peer_address" "http_address" "members" "join" "authentication" "initial_user" "initial_password_file" "jwks_file" "jwt_issuer" "jwt_audience" -}}
{{- if hasKey $.Values.config $key -}}
{{- fail (printf "config.%s: the chart decides it" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
