# shellcheck shell=bash
# Plans and references: checks everything that can be checked without a change, and resolves @{…}.

# A plan's lines: `PARTITION TEMPLATE [STACK]`, `release`, `tunnels SECRET NAME=CONNECTION...`, `config POLICY PATH...`, `smoke`.
read_plan() {
    plan=$place/${1%.plan}.plan
    [[ -f $plan ]] || fail "$plan: no such plan$(unknown_name "${1%.plan}" "$(cd "$place" && printf '%s\n' ./*.plan | sed -e 's|^./||' -e 's/\.plan$//')")"
    sed -e 's/[[:space:]]*#.*//' -e '/^[[:space:]]*$/d' "$plan" >"$work/plan"
    [[ -s $work/plan ]] || fail "$plan: it is empty"
}

template_of() { printf '%s/templates/%s/%s.yaml' "$infra" "$1" "$2"; }
parameters_of() { printf '%s/%s/%s.params' "$place" "$1" "$2"; }
name_of() { printf 'bedrock-gateway-%s-%s' "$environment" "$1"; }

# keys TEMPLATE SECTION: the names in a section. templates PARTITION: the templates. The others: what comes before here in the plan.
keys() { section "$1" "$2" | cut -d' ' -f1; }
templates() { (cd "$infra/templates/$1" && printf '%s\n' *.yaml) | sed 's/\.yaml$//'; }
outputs_before() {
    local stack template
    while read -r stack template; do
        if [[ $stack == */* ]]; then keys "$template" Outputs | sed "s|^|$stack.|"; fi
    done <"$work/before"
}
stacks_before() { sed -n 's|^\([a-z]*/[^ ]*\) .*|\1|p' "$work/before"; }

# check_value WHERE KEY VALUE: fails if the template refuses a value without references (constraints are in $work/constraints).
# CloudFormation would refuse it too, but only after it made the stacks before this one.
check_value() {
    local pattern values want type one list=("$3")
    [[ $3 != *'@{'* ]] || return 0
    IFS=$'\037' read -r pattern values want type < <(awk -F'\t' -v key="$2" '
        $1 == key { text[$2] = $3 } END { printf "%s\037%s\037%s\037%s\n", text["pattern"], text["values"], text["want"], text["type"] }' "$work/constraints")
    if [[ -n $values ]]; then
        [[ -n $3 && " $values " == *" $3 "* ]] || fail "$1: $2 is ${3:-empty}; want one of: $values"
    fi
    if [[ -n $pattern ]]; then
        # The pattern of a list is that of each of its values.
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html
        if [[ $type == CommaDelimitedList ]]; then IFS=, read -ra list <<<"$3"; fi
        ((${#list[@]})) || list=('')
        for one in "${list[@]}"; do
            one=${one#"${one%%[! ]*}"} one=${one%"${one##*[! ]}"}
            [[ $one =~ ^($pattern)$ ]] || fail "$1: $2 is ${3:-empty}; want ${want:-$pattern}"
        done
    fi
}

# script FILE: the script without its comment lines, so that it fits into a parameter.
script() { sed '1!{/^[[:space:]]*#/d;}' "$infra/../$1"; }

# file_of NAME: the file of @{file:NAME}, which is in the environment's directory unless its path is absolute.
file_of() {
    case $1 in
    /*) printf '%s' "$1" ;;
    *) printf '%s/%s' "$place" "$1" ;;
    esac
}

# check_file WHERE NAME: a file whose text becomes a parameter's value, such as a certificate in PEM. Anyone who may describe the stack
# reads it. 4,096 bytes: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
check_file() {
    local where=$1 file
    file=$(file_of "$2")
    [[ -f $file ]] || fail "$where: @{file:$2}: no file $file"
    [[ -s $file ]] || fail "$where: @{file:$2}: $file is empty"
    (($(wc -c <"$file") <= 4096)) || fail "$where: @{file:$2}: $file has over 4,096 bytes, the limit of a parameter"
    ! grep -q 'PRIVATE KEY' "$file" || fail "$where: @{file:$2}: $file has a private key, which must not become a parameter"
    ! LC_ALL=C grep -q '[^[:print:][:space:]]' "$file" || fail "$where: @{file:$2}: $file is not text"
}

# check_references WHERE TEXT: checks that every @{…} names something earlier in the plan.
check_references() {
    local where=$1 rest=$2 reference stack output template parameters lacks near
    while [[ $rest == *'@{'* ]]; do
        rest=${rest#*'@{'}
        [[ $rest == *\}* ]] || fail "$where: @{ is not closed by }"
        reference=${rest%%\}*}
        rest=${rest#*\}}
        case $reference in
        release.Key | release.Sha256) grep -q '^release$' "$work/before" || fail "$where: @{$reference} before the plan's release" ;;
        config.Key | config.Sha256) grep -q '^config$' "$work/before" || fail "$where: @{$reference} before the plan's config" ;;
        tunnels.*)
            grep -q '^tunnels ' "$work/before" || fail "$where: @{$reference} before the plan's tunnels"
            [[ " $(grep '^tunnels ' "$work/before") " == *" ${reference#tunnels.} "* ]] ||
                fail "$where: @{$reference}: no such tunnel$(unknown_name "$reference" "$(sed -n '/^tunnels /{ s/^tunnels//; s/ / tunnels./g; p; }' "$work/before")")"
            ;;
        base64:*)
            [[ -f $infra/../${reference#base64:} ]] || fail "$where: @{$reference}: no such file"
            (($(script "${reference#base64:}" | wc -c) <= 3072)) ||
                fail "$where: @{$reference}: over 3,072 bytes without its comments; in base64 a parameter takes 4,096 characters"
            ;;
        file:*) check_file "$where" "${reference#file:}" ;;
        environment | govcloud-account | commercial-account) ;;
        outbound-issuer) wants_issuer=yes ;;
        govcloud/*.* | commercial/*.*)
            stack=${reference%%.*} output=${reference#*.}
            template=$(awk -v stack="$stack" '$1 == stack { print $2 }' "$work/before")
            [[ -n $template ]] ||
                fail "$where: @{$reference}: no stack $stack comes before it in $plan$(unknown_name "$stack" "$(stacks_before)")"
            section "$template" Outputs | grep -q "^$output " ||
                fail "$where: @{$reference}: $template has no output $output$(unknown_name "$output" "$(keys "$template" Outputs)")"
            parameters=$(parameters_of "${stack%%/*}" "${stack#*/}")
            lacks=$(absent "$template" "$parameters" Outputs "$output") || exit 1
            [[ -z $lacks ]] || fail "$where: @{$reference}: the stack $stack has this output only with $lacks in $parameters"
            ;;
        *)
            near=$(nearest "$reference" "release.Key release.Sha256 config.Key config.Sha256 environment govcloud-account commercial-account outbound-issuer $(outputs_before)")
            fail "$where: @{$reference}: want PARTITION/STACK.Output, (release|config).(Key|Sha256), tunnels.NAME, base64:FILE, file:FILE, environment, govcloud-account, commercial-account or outbound-issuer${near:+; did you mean $near?}"
            ;;
        esac
    done
}

check_stack() {
    local partition=$1 template=$2 stack=$3 file parameters line key
    file=$(template_of "$partition" "$template") parameters=$(parameters_of "$partition" "$stack")
    [[ -f $file ]] || fail "$plan: $partition $template: no file $file$(unknown_name "$template" "$(templates "$partition")")"
    (($(wc -c <"$file") <= 51200)) || fail "$file: over 51,200 bytes, the limit of a change set"
    grep -q "^$partition/$stack " "$work/before" && fail "$plan: $partition/$stack is given twice"
    section "$file" Parameters >"$work/declared"
    constraints "$file" >"$work/constraints"
    : >"$work/given"
    if [[ -f $parameters ]]; then pairs "$parameters" >"$work/given"; fi
    while IFS= read -r line; do
        key=${line%%=*}
        grep -q "^$key " "$work/declared" ||
            fail "$parameters: $file has no parameter $key$(unknown_name "$key" "$(keys "$file" Parameters)")"
        [[ $key != Environment ]] || fail "$parameters: remove Environment; it is always the directory's name"
        [[ -n ${line#*=} ]] || grep -q "^$key default$" "$work/declared" ||
            fail "$parameters: $key is empty: $file has no default for it"
        check_references "$parameters: $key" "${line#*=}"
        check_value "$parameters" "$key" "${line#*=}"
    done <"$work/given"
    while read -r key line; do
        [[ $key == Environment || $line == default ]] || grep -q "^$key=" "$work/given" ||
            fail "$parameters: $key is missing: $file has no default for it$([[ -f $parameters ]] || printf '; no such file')"
    done <"$work/declared"
    printf '%s/%s %s\n' "$partition" "$stack" "$file" >>"$work/before"
}

check_tunnels() {
    local word names=''
    (($# >= 2)) || fail "$plan: want tunnels SECRET NAME=CONNECTION..., found: tunnels $*"
    check_references "$plan: tunnels" "$*"
    [[ $1 == '@{govcloud/'* ]] || fail "$plan: tunnels: the secret is $1; want @{govcloud/STACK.Output}"
    shift
    for word in "$@"; do
        [[ $word =~ ^([a-z])=@\{commercial/ ]] || fail "$plan: tunnels: want NAME=@{commercial/STACK.Output} with a letter as NAME, found: $word"
        [[ " $names " != *" ${BASH_REMATCH[1]^}1 "* ]] || fail "$plan: tunnels: ${BASH_REMATCH[1]} is given twice"
        names+=" ${BASH_REMATCH[1]^}1 ${BASH_REMATCH[1]^}2"
    done
    echo "tunnels$names" >>"$work/before"
}

# planned: the stacks of all plans of the environment.
planned() {
    cat "$place"/*.plan | awk '$1 == "govcloud" || $1 == "commercial" { print $1 "/" ($3 == "" || $3 ~ /^#/ ? $2 : $3) }' | sort -u
}

# check_unused: names a file of parameters that no plan of the environment uses.
check_unused() {
    local file stack
    for file in "$place"/govcloud/* "$place"/commercial/*; do
        [[ -f $file ]] || continue
        stack=${file#"$place"/}
        stack=${stack%.params}
        if [[ $file != *.params ]] || ! planned | grep -qxF "$stack"; then
            fail "$file: no plan of $place has a stack $stack$(unknown_name "$stack" "$(planned)")"
        fi
    done
}

# curl_config: names a file that SMOKE_CURL_CONFIG needs and that does not exist; nothing if all is there.
curl_config() {
    local file
    [[ -n $SMOKE_CURL_CONFIG ]] || return 0
    if [[ ! -f $SMOKE_CURL_CONFIG ]]; then
        printf 'SMOKE_CURL_CONFIG: no file %s (relative to %s)' "$SMOKE_CURL_CONFIG" "$PWD"
        return
    fi
    sed -n 's/^ *\(cacert\|cert\|key\)[ =:][ =:]*"\{0,1\}\([^"]*\)"\{0,1\} *$/\2/p' "$SMOKE_CURL_CONFIG" | while IFS= read -r file; do
        [[ -f $file ]] || printf '%s: no file %s (relative to %s)\n' "$SMOKE_CURL_CONFIG" "$file" "$PWD"
    done
}

# filled TEXT: the text with placeholders for the references, which have values only after a deployment.
filled() { sed -e 's/@{[^}]*Arn}/arn:aws:iam::111122223333:role\/placeholder/g' -e 's/@{[^}]*}/placeholder.invalid/g' <<<"$1"; }

# check_paths POLICY PATH...: fails if the policy cannot be rendered with the plan's paths. Writes notes, a line each, to $work/notes:
# what `check` notes, and classes for which the plan has no address.
check_paths() {
    local policy=$1 path arguments=()
    shift
    for path in "$@"; do arguments+=(--path "$(filled "$path")"); done
    sed -n 's/^note: //p' "$work/checked" >>"$work/notes"
    filled "$(cat "$place/$policy")" >"$work/filled"
    gateway render envoy --policy "$work/filled" "${arguments[@]}" >/dev/null 2>"$work/error" ||
        fail "$plan: config $policy: $(sed -n "s|$work/filled|$place/$policy|; s/^error: //p" "$work/error")"
    { gateway check "$work/filled" "${arguments[@]}" 2>&1 || true; } |
        sed -n "s|$work/filled|$place/$policy|; s/no --path is given for/the plan has no address for/; s/^error: \(.*the plan has no address for .*\)/\1/p" >>"$work/notes"
}

# policy_regions POLICY: the regions of a policy in JSON or YAML.
policy_regions() {
    tr -d '\r' <"$1" | awk '
        { text = text $0 "\n" }
        /^regions:/ { inside = 1; sub(/^regions:/, ""); rest = $0; next }
        inside && /^[^ #]/ { inside = 0 }
        inside && /^ *[a-z"\047]/ {
            match($0, /^ */)
            if (!indent) indent = RLENGTH
            if (RLENGTH == indent) { key = $1; gsub(/[":\047]/, "", key); print key }
        }
        END {
            if (text ~ /^[ \n]*[{]/) { if (!match(text, /"regions"[ \n]*:[ \n]*[{]/)) exit; rest = substr(text, RSTART + RLENGTH - 1) }
            for (i = 1; i <= length(rest); i++) {
                letter = substr(rest, i, 1)
                if (letter == "{") depth++
                else if (letter == "}" && --depth == 0) exit
                else if (depth == 1 && letter ~ /[a-z0-9-]/) key = key letter
                if (letter == ":" && depth == 1) { print key; key = "" } else if (letter == "}" || letter == ",") key = ""
            }
        }'
}

# check_regions POLICY: the role of Commercial must allow the policy's regions, or calls that name no model are refused there.
check_regions() {
    local stack template parameters regions region
    while read -r stack template; do
        parameters=$(parameters_of commercial "${stack#*/}")
        regions=$(given "$template" "$parameters" Regions)
        if [[ -z $regions || $regions == *'@{'* ]]; then continue; fi
        while read -r region; do
            [[ ",$regions," == *",$region,"* ]] ||
                fail "$parameters: Regions is $regions, without $region, which $1 calls: add it to one, or remove it from the other"
        done < <(policy_regions "$1")
    done < <(sed -n 's|^\(commercial/[^ ]* .*/commercial/identity\.yaml\)$|\1|p' "$work/before")
}

# check_smoke_model POLICY: what the policy says of SMOKE_MODEL. Asks the operator's program, which has the filter's own rules.
check_smoke_model() {
    [[ $SMOKE_MODEL != none ]] || return 0
    filled "$(cat "$1")" >"$work/filled"
    (unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_BEARER_TOKEN_BEDROCK
        gateway explain --policy "$work/filled" "curl -X POST https://gateway.invalid/model/$SMOKE_MODEL/converse -d '{}'") \
        >"$work/explained" 2>"$work/error" || fail "$place/settings: SMOKE_MODEL: $1 cannot explain a call to it: $(tail -n1 "$work/error")"
    sed -n '/^Model$/,/^$/p' "$work/explained" >"$work/model"
    ! grep -q '^  refused$' "$work/model" ||
        fail "$place/settings: SMOKE_MODEL is $SMOKE_MODEL, which $1 refuses: $(sed -n 's/^    //p' "$work/model" | tail -n1)"
}

check_plan() {
    local kind rest words missing file
    : >"$work/before"
    : >"$work/configs"
    : >"$work/notes"
    while read -r kind rest; do
        read -ra words <<<"$rest"
        case $kind in
        govcloud | commercial)
            ((${#words[@]} == 1 || ${#words[@]} == 2)) || fail "$plan: want PARTITION TEMPLATE [STACK], found: $kind $rest"
            check_stack "$kind" "${words[0]}" "${words[1]:-${words[0]}}"
            ;;
        release)
            [[ -n $RELEASE ]] || fail "$place/settings: RELEASE is missing: the release archive (docs/deployment.md)"
            check_release
            check_references "$place/settings: BUCKET" "$BUCKET"
            [[ -n $BUCKET ]] || fail "$place/settings: BUCKET is missing"
            echo release >>"$work/before"
            ;;
        tunnels) check_tunnels "${words[@]}" ;;
        config)
            ((${#words[@]} >= 2)) || fail "$plan: want config POLICY PATH..., found: $kind $rest"
            [[ -f $place/${words[0]} ]] || fail "$plan: no file $place/${words[0]}"
            [[ -n $BUCKET ]] || fail "$place/settings: BUCKET is missing"
            check_references "$place/settings: BUCKET" "$BUCKET"
            check_references "$plan: config" "$rest"
            check_references "$place/${words[0]}" "$(cat "$place/${words[0]}")"
            gateway check --placeholders "$place/${words[0]}" >"$work/checked" 2>&1 || fail "$(grep -v '^note: ' "$work/checked" | sed -e 's/^error: //' -e '/^[0-9]* faults\{0,1\}$/d')"
            check_paths "${words[@]}"
            check_regions "$place/${words[0]}"
            echo config >>"$work/before"
            printf '%s\n' "$place/${words[0]}" >>"$work/configs"
            ;;
        smoke)
            [[ -n $SMOKE_URL ]] || fail "$place/settings: SMOKE_URL is missing: where the gateway is reached from here"
            check_references "$place/settings: SMOKE_URL" "$SMOKE_URL"
            [[ -n $SMOKE_MODEL ]] ||
                fail "$place/settings: SMOKE_MODEL is missing: a model that the policy allows, for one short call, or none for no call"
            [[ $SMOKE_MODEL =~ ^[A-Za-z0-9._:-]+$ ]] || fail "$place/settings: SMOKE_MODEL is $SMOKE_MODEL, which is not a model id"
            [[ $SMOKE_URL =~ ^https?://[^\"]+$ ]] || fail "$place/settings: SMOKE_URL is $SMOKE_URL; want http:// or https:// and a host"
            missing=$(curl_config)
            [[ -z $missing ]] || fail "$place/settings: $missing"
            grep -q "^$GATEWAY " "$work/before" || fail "$place/settings: GATEWAY: no stack ${GATEWAY:-(none)} comes before the plan's smoke$(unknown_name "$GATEWAY" "$(stacks_before)")"
            while IFS= read -r file; do check_smoke_model "$file"; done <"$work/configs"
            ;;
        *) fail "$plan: unknown step $kind$(unknown_name "$kind" "govcloud commercial release tunnels config smoke")" ;;
        esac
    done <"$work/plan"
    check_unused
}

# resolve TEXT: prints it with each @{…} replaced by its output, key, digest or file.
resolve() {
    local text=$1 done='' reference value
    while [[ $text == *'@{'* ]]; do
        done+=${text%%'@{'*}
        text=${text#*'@{'}
        reference=${text%%\}*}
        text=${text#*\}}
        case $reference in
        file:*) value=$(tr -d '\r' <"$(file_of "${reference#file:}")") ;;
        base64:*) value=$(script "${reference#base64:}" | base64 | tr -d '\n') ;;
        environment) value=$environment ;;
        govcloud-account) value=$GOVCLOUD_ACCOUNT ;;
        commercial-account) value=$COMMERCIAL_ACCOUNT ;;
        outbound-issuer) value=$issuer ;;
        *)
            value=$(awk -F'\t' -v key="$reference" '$1 == key { print substr($0, length(key) + 2) }' "$work/known")
            [[ -n $value ]] || fail "@{$reference} has no value: the stack was deployed without that output"
            ;;
        esac
        done+=$value
    done
    printf '%s' "$done$text"
}
