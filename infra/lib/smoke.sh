# shellcheck shell=bash
# The smoke test, and the way back if it fails.

# Exit statuses of curl that say nothing about the gateway: the name, the way to it, or the trust in its certificate is missing
# here. https://curl.se/docs/manpage.html, "EXIT CODES".
declare -A unreached=([2]=1 [5]=1 [26]=1 [6]=1 [7]=1 [35]=1 [51]=1 [53]=1 [54]=1 [58]=1 [59]=1 [60]=1 [66]=1 [77]=1 [80]=1 [82]=1 [83]=1 [91]=1 [97]=1)

# curl_said: what curl says went wrong. It may add lines of advice.
curl_said() { grep -m1 '^curl: ' "$work/error" || tail -n1 "$work/error"; }

# call EXPECTED-STATUS LINE ARGUMENT...: sends one request; its status must match, and its headers must have LINE. Fails with 2 if
# no HTTP server was reached. Sets $ended to curl's exit status.
call() {
    local wanted=$1 line=$2 out code connected
    ended=0
    shift 2
    # HTTP/1.1: the filter answers before the body ends, after which Envoy resets the stream of HTTP/2, and curl 7.88 takes that for a
    # failure now and then ("Stream error in the HTTP/2 framing layer", 92).
    local options=(--http1.1 --silent --show-error --connect-timeout 5 --max-time 60 --dump-header "$work/headers" --output "$work/body" \
        --write-out '%{http_code} %{time_connect}')
    if [[ -n $SMOKE_CURL_CONFIG ]]; then options+=(--config "$SMOKE_CURL_CONFIG"); fi
    if [[ $self_signed == yes ]]; then options+=(--insecure); fi
    : >"$work/headers"
    : >"$work/body"
    out=$(curl "${options[@]}" "$@" 2>"$work/error") || ended=$?
    read -r code connected <<<"$out"
    if ((ended != 0)); then
        # 28 is a time-out, before the connection or after it.
        if [[ -n ${unreached[$ended]:-} ]] || { ((ended == 28)) && [[ $connected =~ ^[0.]+$ ]]; }; then return 2; fi
        say "  $(curl_said)"
        return 1
    fi
    # shellcheck disable=SC2053 # a pattern
    if [[ $code != $wanted ]] || ! grep -qi "$line" "$work/headers"; then
        say "  status $code: $(head -c 300 "$work/body")"
        return 1
    fi
}

# refused_call URL: a call that the filter refuses. Only the filter answers in this form, and it sends nothing to Bedrock.
refused_call() {
    call '4??' '^x-amzn-errortype:' -X POST -H 'content-type: application/json' -d '{}' "$1/model/smoke-test/no-such-operation"
}

# healthy: what the load balancer says of the gateway's machines: "HEALTHY of ALL", or nothing if it cannot be asked.
healthy() {
    local group arn
    group=$(resolve "@{$GATEWAY.TargetGroupName}" 2>/dev/null) || return 0
    arn="arn:aws-us-gov:elasticloadbalancing:$GOVCLOUD_REGION:$GOVCLOUD_ACCOUNT:$group"
    aws_in govcloud elbv2 describe-target-health --target-group-arn "$arn" --output text \
        --query "TargetHealthDescriptions[].TargetHealth.[State]" 2>/dev/null |
        awk '$1 == "healthy" { healthy++ } NF { all++ } END { if (all) print healthy + 0, "of", all }'
}

# remedy HOST: what to do where curl ended with $ended.
remedy() {
    local balancer
    balancer=$( (resolve "@{$GATEWAY.NlbDnsName}") 2>/dev/null || printf 'the load balancer')
    case $ended in
    6)
        if [[ $1 == "$balancer" ]]; then
            printf 'a new load balancer has its name after minutes: wait, or run this where names of AWS are resolved'
        else
            printf 'make a DNS record of %s that leads to %s, or set connect-to in the file of SMOKE_CURL_CONFIG' "$1" "$balancer"
        fi
        ;;
    60) printf 'set cacert in the file of SMOKE_CURL_CONFIG to the CA of the certificate of %s' "$1" ;;
    esac
}

# unreached_machines: fails with 1 if the load balancer finds no healthy machine, else with 2.
unreached_machines() {
    local machines todo
    say "  not reached from here: $(curl_said)"
    todo=$(remedy "$(smoke_host)")
    [[ -z $todo ]] || say "  $todo (docs/deployment.md, \"Certificates\")"
    machines=$(healthy)
    if [[ $machines == "0 of "* ]]; then
        say "  failed: its load balancer finds $machines machines healthy"
        return 1
    fi
    say "  its load balancer finds ${machines:-an unknown number of} machines healthy; nothing was restored"
    return 2
}

# is_self_signed: yes, if each machine makes its own certificate, which nobody can verify; else no.
is_self_signed() {
    if grep -q '^CertificateSecretArn=.' "$(parameters_of "${GATEWAY%%/*}" "${GATEWAY#*/}")" 2>/dev/null; then printf no; else printf yes; fi
}

# smoke: fails with 1 if the gateway answers wrongly, or not at all and its load balancer finds no healthy machine. Fails with 2 if
# it cannot be reached from here, which says nothing about it: a failed connection is not a failed deployment.
smoke() {
    local url json='content-type: application/json' ended outcome start=$SECONDS limit self_signed
    url=$(resolve "$SMOKE_URL") || exit 1
    say "smoke test of $url"
    self_signed=$(is_self_signed)
    if [[ $url == https://* && $self_signed == yes ]]; then
        say "  the machines' certificates are self-signed (no CertificateSecretArn): they are not verified"
    fi
    # A new load balancer's name takes minutes to resolve.
    limit=$(awk -v poll="$poll" 'BEGIN { print int(60 * poll) }')
    while :; do
        outcome=0
        refused_call "$url" || outcome=$?
        if ((outcome != 2 || SECONDS - start >= limit)); then break; fi
        sleep "$poll"
    done
    if ((outcome == 2)); then
        unreached_machines
        return
    fi
    ((outcome == 0)) || { say "  failed: a call that the filter must refuse"; return 1; }
    say "  an unknown operation is refused: $(sed -n 's/^x-amzn-errortype: *//Ip' "$work/headers" | tr -d '\r')"
    if [[ $SMOKE_MODEL == none ]]; then
        say "  no call to Bedrock: SMOKE_MODEL is none"
        return 0
    fi
    call 200 '^content-type: application/json' -X POST -H "$json" "$url/model/$SMOKE_MODEL/converse" \
        -d '{"messages":[{"role":"user","content":[{"text":"Say ok."}]}],"inferenceConfig":{"maxTokens":8}}' || outcome=$?
    if ((outcome == 2)); then
        unreached_machines
        return
    fi
    ((outcome == 0)) || { say "  failed: a call to $SMOKE_MODEL"; return 1; }
    say "  $SMOKE_MODEL answers"
}

# former_value KEY: a parameter's value before this run; fails if it had none.
former_value() { awk -F'\t' -v key="$1" '$1 == key { print substr($0, length(key) + 2); found = 1 } END { exit !found }' "$work/former"; }

# Gives the gateway its former release, user data and configuration; its other parameters stay. The user data belongs to the
# release, since it names files of the archive. The template stays too, so its parameters are the present ones: AWS refuses the name
# of one that the template lacks. https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Parameter.html
roll_back() {
    local key value former separator='' differs=no partition=${GATEWAY%%/*} stack=${GATEWAY#*/}
    [[ -s $work/former ]] || fail "the smoke test failed; nothing to restore: this run created $GATEWAY, or did not change it"
    parameters "$partition" "$stack" >"$work/present"
    {
        printf '['
        while IFS=$'\t' read -r key value; do
            case $key in
            ConfigKey | ConfigSha256 | ArtifactKey | ArtifactSha256 | UserData)
                former=$(former_value "$key") || former=$value
                [[ $former == "$value" ]] || differs=yes
                printf '%s{"ParameterKey":"%s","ParameterValue":%s}' "$separator" "$key" "$(quoted "$former")"
                ;;
            *) printf '%s{"ParameterKey":"%s","UsePreviousValue":true}' "$separator" "$key" ;;
            esac
            separator=,
        done <"$work/present"
        printf ']'
    } >"$work/parameters.json"
    [[ $differs == yes ]] ||
        fail "the smoke test failed; nothing to restore: release and configuration are what they were, and this run changed other things of $GATEWAY"
    say "$GATEWAY: restoring its former release and configuration"
    yes=yes
    change "$partition" "$stack" UPDATE --use-previous-template --parameters "file://$work/parameters.json"
    fail "the smoke test failed; $GATEWAY has its former release and configuration again"
}
