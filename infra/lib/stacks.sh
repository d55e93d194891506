# shellcheck shell=bash
# Stacks: change sets, consent, and what failed.

# look PARTITION STACK: sets $status (empty: no such stack) and adds the stack's outputs to the known values.
look() {
    local partition=$1 stack=$2 name out
    name=$(name_of "$stack")
    status=''
    if out=$(aws_in "$partition" cloudformation describe-stacks --stack-name "$name" --output text \
        --query "Stacks[0].[[['status', StackStatus]], Outputs[].[OutputKey, OutputValue]][]" 2>"$work/error"); then
        status=$(awk -F'\t' '$1 == "status" { print $2; exit }' <<<"$out")
        [[ -f $work/known ]] && { grep -v "^$partition/$stack\." "$work/known" >"$work/known.new" || true; }
        awk -F'\t' -v OFS='\t' -v stack="$partition/$stack." 'NR > 1 && NF > 1 { print stack $1, $2 }' <<<"$out" >>"$work/known.new"
        mv "$work/known.new" "$work/known"
    elif ! grep -q 'does not exist' "$work/error"; then
        fail "$(tail -n1 "$work/error")"
    fi
}

quoted() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    printf '"%s"' "${text//$'\t'/\\t}"
}

# write_parameters PARTITION STACK TEMPLATE: writes the change set's parameters as JSON into $work/parameters.json.
write_parameters() {
    local line separator='' value
    section "$3" Parameters >"$work/declared"
    : >"$work/given"
    if [[ -f $(parameters_of "$1" "$2") ]]; then pairs "$(parameters_of "$1" "$2")" >"$work/given"; fi
    if grep -q '^Environment ' "$work/declared"; then printf 'Environment=%s\n' "$environment" >>"$work/given"; fi
    {
        printf '['
        while IFS= read -r line; do
            value=$(resolve "${line#*=}") || exit 1
            printf '%s{"ParameterKey":%s,"ParameterValue":%s}' "$separator" "$(quoted "${line%%=*}")" "$(quoted "$value")"
            separator=,
        done <"$work/given"
        printf ']'
    } >"$work/parameters.json"
}

# Asks for consent, unless --yes was given. Without a terminal it fails.
ask() {
    [[ $yes == no ]] || return 0
    local answer=''
    { : </dev/tty; } 2>/dev/null || fail "$1 No terminal to ask on: give --yes"
    printf '%s [y/N] ' "$1" >/dev/tty
    read -r answer </dev/tty || printf '\n' >/dev/tty
    [[ $answer == [yY] || $answer == yes ]]
}

# wait_for PARTITION STACK: polls until nothing is in progress; $status is the end state.
wait_for() {
    while look "$1" "$2" && [[ $status == *_IN_PROGRESS ]]; do sleep "$poll"; done
}

# first_failure PARTITION STACK TOKEN: the first failed event of an operation; later failures follow from it.
first_failure() {
    aws_in "$1" cloudformation describe-stack-events --stack-name "$(name_of "$2")" --output text --query \
        "StackEvents[?ClientRequestToken=='$3' && ends_with(ResourceStatus, '_FAILED')].[LogicalResourceId, ResourceType, ResourceStatusReason]" |
        tail -n1 | tr '\t' ' '
}

# change PARTITION STACK KIND ARGUMENT...: creates a change set, shows it, asks, and executes it. Sets $changed to yes or no.
change() {
    local partition=$1 stack=$2 kind=$3 name set token out state reason role
    shift 3
    name=$(name_of "$stack") changed=no
    service_role "$partition"
    set="deploy-$(date -u +%Y%m%d%H%M%S)-$$-$RANDOM"
    token=$set
    aws_in "$partition" cloudformation create-change-set --stack-name "$name" --change-set-name "$set" --change-set-type "$kind" \
        --capabilities CAPABILITY_NAMED_IAM --tags "Key=bedrock-gateway:environment,Value=$environment" "${role[@]}" "$@" >/dev/null ||
        fail "$partition/$stack: CloudFormation refuses the change set"
    while :; do
        out=$(aws_in "$partition" cloudformation describe-change-set --stack-name "$name" --change-set-name "$set" --output text --query \
            "[[['status', Status, StatusReason]], Changes[].ResourceChange.[Action, Replacement, LogicalResourceId, ResourceType]][]")
        state=$(awk -F'\t' '$1 == "status" { print $2; exit }' <<<"$out")
        [[ $state == *_PENDING || $state == *_IN_PROGRESS ]] || break
        sleep "$poll"
    done
    if [[ $state == FAILED ]]; then
        reason=$(awk -F'\t' '$1 == "status" { print $3; exit }' <<<"$out")
        aws_in "$partition" cloudformation delete-change-set --stack-name "$name" --change-set-name "$set" >/dev/null
        case $reason in
        *"didn't contain changes"* | *"No updates are to be performed"*)
            say "$partition/$stack: no change"
            return 0
            ;;
        esac
        fail "$partition/$stack: $reason"
    fi
    say "$partition/$stack: $(tr '[:upper:]' '[:lower:]' <<<"$kind")"
    show_changes <<<"$out"
    if ! check_kept "$partition/$stack" <<<"$out" || ! ask "Make this change to $partition/$stack?"; then
        aws_in "$partition" cloudformation delete-change-set --stack-name "$name" --change-set-name "$set" >/dev/null
        fail "$partition/$stack is left as it was"
    fi
    aws_in "$partition" cloudformation execute-change-set --stack-name "$name" --change-set-name "$set" --client-request-token "$token"
    wait_for "$partition" "$stack"
    case $status in
    CREATE_COMPLETE | UPDATE_COMPLETE) ;;
    *) fail "$partition/$stack: $status. First to fail: $(first_failure "$partition" "$stack" "$token")" ;;
    esac
    changed=yes
}

show_changes() {
    awk -F'\t' '$1 != "status" {
        what = $1 == "Add" ? "+ add" : $1 == "Remove" ? "- remove" : $1 == "Modify" && $2 == "True" ? "! replace" : \
            $1 == "Modify" && $2 == "Conditional" ? "! replace?" : $1 == "Modify" ? "~ change" : "? " $1
        printf "  %-10s %-28s %s\n", what, $3, $4; rows++
    } END { if (!rows) print "  ~ parameters, tags or outputs only" }'
}

# check_kept STACK: refuses a change set on stdin that replaces or removes a kept resource; --replace STACK.RESOURCE allows it.
check_kept() {
    local action replacement resource type refused=0
    while IFS=$'\t' read -r action replacement resource type; do
        [[ " $kept " == *" $type "* ]] || continue
        [[ $action == Remove || $replacement == True || $replacement == Conditional ]] || continue
        [[ " $replace " != *" $1.$resource "* ]] || continue
        printf 'deploy: %s: %s (%s) would be replaced or removed, which cannot be undone; to allow it: --replace %s.%s\n' \
            "$1" "$resource" "$type" "$1" "$resource" >&2
        refused=1
    done
    return $refused
}

# parameters PARTITION STACK: what a stack was given, a line KEY VALUE each.
parameters() {
    aws_in "$1" cloudformation describe-stacks --stack-name "$(name_of "$2")" --output text \
        --query "Stacks[0].Parameters[].[ParameterKey, ParameterValue]"
}

deploy_stack() {
    local partition=$1 template stack=$3 kind=UPDATE
    template=$(template_of "$1" "$2")
    look "$partition" "$stack"
    case $status in
    '' | REVIEW_IN_PROGRESS) kind=CREATE ;;
    ROLLBACK_COMPLETE)
        # After a failed first creation CloudFormation accepts only a deletion.
        ask "$partition/$stack was never created completely ($status). Remove it?" || fail "$partition/$stack is left as it is"
        remove_stack "$partition" "$stack"
        kind=CREATE
        ;;
    *_IN_PROGRESS) fail "$partition/$stack is busy: $status" ;;
    *_FAILED) fail "$partition/$stack: $status: repair it by hand (aws cloudformation continue-update-rollback or delete-stack), then deploy again" ;;
    esac
    write_parameters "$partition" "$stack" "$template"
    if [[ "$partition/$stack" == "$GATEWAY" && $kind == UPDATE ]]; then
        parameters "$partition" "$stack" >"$work/former"
    fi
    change "$partition" "$stack" "$kind" --template-body "file://$template" --parameters "file://$work/parameters.json"
    if [[ "$partition/$stack" == "$GATEWAY" && $changed == no ]]; then rm -f "$work/former"; fi
}

remove_stack() {
    local role
    service_role "$1"
    aws_in "$1" cloudformation delete-stack --stack-name "$(name_of "$2")" "${role[@]}" || fail "$1/$2: cannot be removed"
    wait_for "$1" "$2"
    [[ -z $status || $status == DELETE_COMPLETE ]] || fail "$1/$2: $status. First to fail: $(aws_in "$1" cloudformation describe-stack-events \
        --stack-name "$(name_of "$2")" --output text --query \
        "StackEvents[?ResourceStatus=='DELETE_FAILED'].[LogicalResourceId, ResourceStatusReason]" | tail -n1 | tr '\t' ' ')"
    say "$1/$2: removed"
}
