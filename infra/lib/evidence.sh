# shellcheck shell=bash
# Checks that only real accounts can show, and a dated report of them: signed calls by path and region, their audit records, a
# broken path, the alarm. The report says what was seen and what was not.

calls=12         # signed calls, each of at most 8 tokens
broken_seconds=${EVIDENCE_BREAK_SECONDS:-90} # how long a path is broken
patience=${EVIDENCE_PATIENCE_SECONDS:-600} # for records and alarms

# report TEXT...: a line of the report, also shown.
report() {
    printf '%s\n' "$*" >>"$report_file"
    say "$*"
}

# result VERDICT WHAT: `seen`, `NOT SEEN` or `not tried`.
result() {
    report "| $2 | $1 |"
    [[ $1 != "NOT SEEN"* ]] || missing=$((missing + 1))
}

# collector ARGUMENT...: runs the audit collector, which a release archive has next to infra/, in GovCloud.
collector() {
    local program=${AUDIT_COLLECTOR_BIN:-$infra/../audit-collector}
    [[ -x $program ]] || program=audit-collector
    command -v "$program" >/dev/null || fail "audit-collector is neither in $(dirname "$infra") nor on PATH; set AUDIT_COLLECTOR_BIN"
    AWS_PROFILE=${GOVCLOUD_PROFILE:-${AWS_PROFILE:-default}} AWS_REGION=$GOVCLOUD_REGION "$program" "$@"
}

# one_call: makes a signed call; appends Bedrock's request id to $work/ids and counts in $answered and $failed.
one_call() {
    local id
    if call 200 '^x-amzn-requestid:' -X POST -H 'content-type: application/json' "$1/model/$SMOKE_MODEL/converse" \
        -d '{"messages":[{"role":"user","content":[{"text":"Say ok."}]}],"inferenceConfig":{"maxTokens":8}}' >"$work/said"; then
        answered=$((answered + 1))
        id=$(sed -n 's/^x-amzn-requestid: *//Ip' "$work/headers" | tr -d '\r')
        printf '%s\n' "$id" >>"$work/ids"
    else
        failed=$((failed + 1))
        cat "$work/said" "$work/error" >"$work/failure"
    fi
}

# records: waits until each call of $work/ids has its record; writes `PATH REGION STATUS ATTEMPTS LATENCY` lines to $work/records.
records() {
    local start=$SECONDS
    while :; do
        collector query --dynamodb "$table" --json --limit 10000 --since "$began" >"$work/json" 2>"$work/reason" ||
            fail "evidence: cannot read the table $table: $(tail -n1 "$work/reason")"
        awk 'function field(name,   text) {
                if (!match($0, "\"" name "\":(\"[^\"]*\"|[0-9]+|null)")) return "-"
                text = substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3)
                gsub(/"/, "", text)
                return text
            }
            NR == FNR { wanted[$0] = 1; next }
            field("upstream_request_id") in wanted { print field("path"), field("region"), field("status"), field("attempts"), field("latency_ms") }
        ' "$work/ids" "$work/json" >"$work/records"
        (($(wc -l <"$work/records") < $(sort -u "$work/ids" | wc -l) && SECONDS - start < patience)) || break
        sleep "$poll"
    done
}

# make_calls URL NUMBER WHAT: calls, and the records that they leave.
make_calls() {
    local number distinct found
    answered=0 failed=0
    : >"$work/ids"
    for ((number = 0; number < $2; number++)); do one_call "$1"; done
    distinct=$(sort -u "$work/ids" | wc -l)
    if ((failed == 0)); then
        result "seen: $answered of $2" "$3: signed calls to $SMOKE_MODEL that Bedrock answers"
    else
        result "NOT SEEN: $failed of $2 failed; the last: $(tr '\n|' '  ' <"$work/failure" | cut -c1-200)" "$3: signed calls to $SMOKE_MODEL that Bedrock answers"
    fi
    ((answered > 0)) || return 0
    records
    found=$(wc -l <"$work/records")
    if ((found == distinct)); then
        result "seen: $found of $distinct" "$3: an audit record of each answered call"
    else
        result "NOT SEEN: $found of $distinct after $patience s" "$3: an audit record of each answered call"
    fi
}

# by_path: what the records show, by path and region.
by_path() {
    report ""
    report "| path | region | calls | status | latency, ms: median, largest |"
    report "|---|---|---|---|---|"
    sort -k1,3 -k5,5n "$work/records" | awk '
        function flush() { if (n) printf "| %s | %s | %d | %s | %s, %s |\n", p, r, n, s, v[int((n + 1) / 2)], v[n]; n = 0 }
        $1 " " $2 " " $3 != key { flush(); key = $1 " " $2 " " $3; p = $1; r = $2; s = $3 }
        { v[++n] = $5 }
        END { flush() }' | while IFS= read -r line; do report "$line"; done
    report ""
    report "| check | result |"
    report "|---|---|"
}

# acl PATH: the network ACL of the Commercial VPC in which a path ends.
acl() {
    local vpc
    vpc=$(resolve "@{commercial/$1-network.VpcId}") || return 1
    aws_in commercial ec2 describe-network-acls --filters "Name=vpc-id,Values=$vpc" Name=default,Values=true \
        --query 'NetworkAcls[0].NetworkAclId' --output text
}

restore_path() {
    [[ -n ${broken:-} ]] || return 0
    aws_in commercial ec2 delete-network-acl-entry --network-acl-id "$broken" --rule-number 1 --ingress ||
        printf 'deploy: evidence: REMOVE RULE 1 OF %s BY HAND: the path is still broken\n' "$broken" >&2
    broken=''
}

# break_path URL PATH: denies all packets into the path's VPC for a while, by its network ACL, which has no state: open connections
# are cut too. https://docs.aws.amazon.com/vpc/latest/userguide/vpc-network-acls.html
break_path() {
    local url=$1 path=$2 list start since alarms
    list=$(acl "$path") || fail "evidence: --break $path: the plan has no stack commercial/$path-network, or it is not deployed"
    ask "Deny all packets into the VPC of $path for $broken_seconds s (rule 1 of $list)?" || { result "not tried" "$path broken"; return 0; }
    since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    aws_in commercial ec2 create-network-acl-entry --network-acl-id "$list" --rule-number 1 --protocol -1 --rule-action deny --ingress \
        --cidr-block 0.0.0.0/0 || fail "evidence: cannot break $path; rule 1 of $list may exist already"
    broken=$list
    start=$SECONDS answered=0 failed=0
    : >"$work/ids"
    while ((SECONDS - start < broken_seconds)); do
        one_call "$url"
        sleep "$(awk -v poll="$poll" 'BEGIN { print poll / 5 }')"
    done
    restore_path
    if ((failed == 0)); then
        result "seen: $answered of $answered" "$path broken for $broken_seconds s: calls go on"
    else
        result "NOT SEEN: $failed of $((answered + failed)) failed" "$path broken for $broken_seconds s: calls go on"
    fi
    records
    if grep -qv "^$path " "$work/records"; then
        result "seen: $(grep -v "^$path " "$work/records" | cut -d' ' -f1 | sort | uniq -c | awk '{ printf "%s%s by %s", s, $1, $2; s = ", " }')" "$path broken: records show another path"
    else
        result "NOT SEEN" "$path broken: records show another path"
    fi
    start=$SECONDS
    while :; do
        alarms=$(aws_in govcloud cloudwatch describe-alarm-history --history-item-type StateUpdate --start-date "$since" --output text \
            --query "AlarmHistoryItems[?starts_with(AlarmName, 'bedrock-gateway-$environment') && contains(HistorySummary, 'to ALARM')].[AlarmName]" \
            2>"$work/reason" | sort -u | tr '\n' ' ')
        if [[ -n $alarms ]] || ((SECONDS - start >= patience)); then break; fi
        sleep "$poll"
    done
    if [[ -n $alarms ]]; then
        result "seen: $alarms" "$path broken: an alarm"
    else
        result "NOT SEEN after $patience s $(tail -n1 "$work/reason")" "$path broken: an alarm"
    fi
}

# evidence VERSION [PATH]: PATH is broken for a while.
evidence() {
    local partition stack file url path paths missing=0 answered failed table began report_file self_signed
    read_plan "$1"
    check_plan
    [[ -n $SMOKE_MODEL && $SMOKE_MODEL != none ]] || fail "evidence needs a SMOKE_MODEL, to which it makes calls"
    : >"$work/known"
    for partition in govcloud commercial; do
        check_account "$partition"
        while read -r stack file; do
            look "$partition" "${stack#*/}"
            [[ $status == *_COMPLETE ]] || fail "evidence: $stack is not deployed (${status:-no such stack})"
        done < <(stacks "$partition/[^ ]*")
    done
    url=$(resolve "$SMOKE_URL") || exit 1
    table=$(resolve "@{govcloud/audit.TableName}") || exit 1
    self_signed=$(is_self_signed)
    began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    report_file=$PWD/evidence-$environment-$1-$(date -u +%Y%m%dT%H%M%SZ).md
    trap 'restore_path; rm -rf "$work"' EXIT
    report "# Evidence: $environment at $1, $began"
    report ""
    report "GovCloud $GOVCLOUD_ACCOUNT in $GOVCLOUD_REGION, Commercial $COMMERCIAL_ACCOUNT in $COMMERCIAL_REGION. Release and configuration:"
    report "$(aws_in govcloud cloudformation describe-stacks --stack-name "$(name_of "${GATEWAY#*/}")" --output text \
        --query "Stacks[0].Parameters[?ParameterKey=='ArtifactSha256' || ParameterKey=='ConfigSha256'].ParameterValue" | tr '\t' ' ')."
    report ""
    report "| check | result |"
    report "|---|---|"
    make_calls "$url" "$calls" "as it is"
    [[ ! -s $work/records ]] || by_path
    paths=$(awk '$1 == "config" { for (i = 3; i <= NF; i++) { sub(/[\/=].*/, "", $i); print $i } }' "$work/plan" | sort -u)
    cp "$work/records" "$work/all" 2>/dev/null || : >"$work/all"
    if [[ -n ${2:-} ]]; then
        break_path "$url" "$2"
        cat "$work/records" >>"$work/all"
    else
        result "not tried" "a broken path, other calls than before, an alarm (--break PATH)"
    fi
    for path in $paths; do
        if grep -q "^$path " "$work/all"; then
            result "seen: $(grep "^$path " "$work/all" | cut -d' ' -f2 | sort -u | tr '\n' ' ')" "a signed call by $path"
        else
            result "NOT SEEN" "a signed call by $path"
        fi
    done
    report ""
    report "$missing not seen."
    say "report: $report_file"
    ((missing == 0))
}
