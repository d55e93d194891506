# shellcheck shell=bash
# What would stop a deployment, found from the operator's own credentials before anything is made. It reads, and changes nothing.
#
# Each finding is a line: `ok`, `STOP` with the reason and the page to read, or `?` where the answer cannot be had from here.

# Pages of AWS. docs/deployment.md has the project's own.
docs=https://docs.aws.amazon.com
page_federation=$docs/IAM/latest/UserGuide/id_roles_providers_outbound_cross_partition_setup.html
page_simulate=$docs/IAM/latest/UserGuide/access_policies_testing-policies.html
page_scp=$docs/organizations/latest/userguide/orgs_manage_policies_scps.html
page_model_access=$docs/bedrock/latest/userguide/model-access.html
page_profiles=$docs/bedrock/latest/userguide/inference-profiles-prereq.html
page_zones=$docs/vpc/latest/privatelink/aws-services-privatelink-support.html
page_quotas=$docs/vpc/latest/userguide/amazon-vpc-limits.html
page_secret_key=$docs/secretsmanager/latest/userguide/security-encryption.html
page_overlap=$docs/vpn/latest/s2svpn/VPNRoutingTypes.html
page_own=docs/deployment.md

stops=0 unknowns=0

ok() { printf '  ok    %s\n' "$*"; }

# stop WHAT REASON PAGE
stop() {
    printf '  STOP  %s: %s\n        %s\n' "$@"
    stops=$((stops + 1))
}

# unknown WHAT REASON
unknown() {
    printf '  ?     %s: %s\n' "$@"
    unknowns=$((unknowns + 1))
}

# reason: the last line of what a failed call said, without the names of the programs.
reason() { tail -n1 "$work/reason" | sed -e 's/^deploy: //' -e 's/^An error occurred //' -e 's/ when calling the [A-Za-z]* operation//'; }

# value PARTITION STACK KEY: a parameter of a stack of the plan, with its references resolved as far as their stacks are deployed;
# empty if there is none.
value() {
    local template text
    template=$(awk -v stack="$1/$2" '$1 == stack { print $2 }' "$work/before")
    [[ -n $template ]] || return 0
    text=$(given "$template" "$(parameters_of "$1" "$2")" "$3")
    if [[ $text == *'@{'* ]]; then text=$(resolve "$text" 2>/dev/null) || text=''; fi
    printf '%s' "$text"
}

# stacks PATTERN: the plan's stacks, a line PARTITION/STACK TEMPLATE each, whose template's path matches.
stacks() { grep -E "^(govcloud|commercial)/[^ ]+ .*/templates/$1\.yaml$" "$work/before" || true; }

preflight() {
    local partition stack file reached
    read_plan "$1"
    say "preflight of $environment at $1"
    say "the environment's files"
    if (check_plan) 2>"$work/reason"; then
        check_plan
        ok "plan, parameters and references"
    else
        stop plan "$(reason)" "$page_own, \"The environment\""
        preflight_end
    fi
    : >"$work/known"
    : >"$work/states"
    awk -v place="$place" '$1 == "config" { print place "/" $2 }' "$work/plan" | sort -u | while IFS= read -r file; do cat "$file"; done >"$work/policies"
    check_addresses
    reached=' '
    for partition in govcloud commercial; do
        say "$partition"
        if ! (check_account "$partition") 2>"$work/reason"; then
            stop credentials "$(reason)" "$page_own, \"The environment\""
            continue
        fi
        ok "credentials of account $(aws_in "$partition" sts get-caller-identity --query Account --output text)"
        reached+="$partition "
        while read -r stack file; do
            look "$partition" "${stack#*/}"
            printf '%s\t%s\n' "$stack" "$status" >>"$work/states"
        done < <(stacks "$partition/[^ ]*")
        check_rights "$partition"
        check_quotas "$partition"
        check_names "$partition"
        case $partition in
        govcloud)
            check_federation
            check_image
            check_listener_secret
            check_client_ca
            ;;
        commercial)
            check_trust_anchor
            check_zones
            check_model
            ;;
        esac
    done
    say "the gateway's address"
    check_address
    preflight_end
}

preflight_end() {
    if ((stops > 0)); then
        printf 'deploy: preflight: %d to correct before a deployment, %d not known from here\n' "$stops" "$unknowns" >&2
        exit 1
    fi
    say "preflight: nothing found that would stop a deployment; $unknowns not known from here"
    exit 0
}

# --- rights and quotas -----------------------------------------------------------------------------------------------

# caller PARTITION: the ARN of the IAM user or role that makes the resources: CloudFormation's service role, or the one behind the
# credentials. Policy simulation wants no session's ARN.
caller() {
    local arn name role
    service_role "$1"
    if ((${#role[@]})); then
        printf '%s' "${role[1]}"
        return
    fi
    arn=$(aws_in "$1" sts get-caller-identity --query Arn --output text)
    case $arn in
    *:assumed-role/*)
        # The session's ARN lacks the role's path.
        name=${arn#*:assumed-role/}
        aws_in "$1" iam get-role --role-name "${name%%/*}" --query Role.Arn --output text
        ;;
    *) printf '%s' "$arn" ;;
    esac
}

# simulate PARTITION REGION ACTION...: prints `ACTION DECISION ALLOWED-BY-SCP` lines.
simulate() {
    local partition=$1 region=$2 arn
    shift 2
    arn=$(caller "$partition") || return 1
    aws_in "$partition" iam simulate-principal-policy --policy-source-arn "$arn" --action-names "$@" --output text \
        --context-entries "ContextKeyName=aws:RequestedRegion,ContextKeyType=string,ContextKeyValues=$region" \
        --query "EvaluationResults[].[EvalActionName, EvalDecision, OrganizationsDecisionDetail.AllowedByOrganizations]"
}

# check_rights PARTITION: simulates the calls that make the plan's resources (rights.tsv).
check_rights() {
    local partition=$1 region=$COMMERCIAL_REGION actions denied role
    [[ $partition == govcloud ]] && region=$GOVCLOUD_REGION
    # shellcheck disable=SC2046 # one path a word
    sed -n 's/^    Type: \(AWS::[A-Za-z0-9:]*\)$/\1/p' $(stacks "$partition/[^ ]*" | cut -d' ' -f2) | sort -u >"$work/types"
    mapfile -t actions < <({
        awk -F'\t' 'NR == FNR { wanted[$1] = 1; next } $1 in wanted { print $2 }' "$work/types" "$infra/lib/rights.tsv"
        # With a service role these are the deployer's rights, and the resources' its own.
        service_role "$partition"
        if ((${#role[@]} == 0)); then
            printf '%s\n' cloudformation:CreateChangeSet cloudformation:ExecuteChangeSet iam:PassRole
            [[ $partition != govcloud ]] || printf '%s\n' s3:PutObject s3:GetObject
        fi
    } | tr ' ' '\n' | sort -u)
    if ! simulate "$partition" "$region" "${actions[@]}" >"$work/decisions" 2>"$work/reason"; then
        unknown rights "cannot simulate policies: $(reason)"
        return
    fi
    denied=$(awk -F'\t' '$3 == "False" { printf " %s", $1 }' "$work/decisions")
    if [[ -n $denied ]]; then
        stop rights "a service control policy denies$denied in $region" "$page_scp"
        return
    fi
    denied=$(awk -F'\t' '$2 != "allowed" { printf " %s", $1 }' "$work/decisions")
    if [[ -n $denied ]]; then
        stop rights "$(caller "$partition") may not$denied; a policy that names its resources does not count here, since the simulation has no names" "$page_simulate"
        return
    fi
    ok "rights of $(caller "$partition") for ${#actions[@]} calls in $region, by simulation"
}

# check_quota PARTITION SERVICE CODE NAME USED WANTED
check_quota() {
    local limit
    if ! limit=$(aws_in "$1" service-quotas get-service-quota --service-code "$2" --quota-code "$3" --query Quota.Value --output text 2>"$work/reason"); then
        unknown "quota $4" "$(reason)"
    elif (($5 + $6 > ${limit%.*})); then
        stop "quota $4" "${limit%.*} allowed, $5 in use, $6 more wanted" "$page_quotas"
    else
        ok "quota $4: ${limit%.*} allowed, $5 in use, $6 more wanted"
    fi
}

# wanted_resources PARTITION TYPE: how many of them the plan's stacks that are not deployed yet would make.
wanted_resources() {
    local stack file count=0 found internet
    while read -r stack file; do
        if grep -q "^$stack"$'\t.*COMPLETE' "$work/states"; then continue; fi
        found=$(grep -c "^    Type: $2$" "$file" || true)
        if [[ $stack == govcloud/network ]]; then
            internet=$(value govcloud network Internet)
            [[ $2 != AWS::EC2::EIP || $internet == path ]] || found=0
        fi
        count=$((count + found))
    done < <(stacks "$1/[^ ]*")
    printf '%d' "$count"
}

check_quotas() {
    local used wanted
    wanted=$(wanted_resources "$1" AWS::EC2::EIP)
    if ((wanted > 0)); then
        used=$(aws_in "$1" ec2 describe-addresses --query 'length(Addresses)' --output text 2>"$work/reason") || { unknown quotas "$(reason)"; return; }
        check_quota "$1" ec2 L-0263D0A3 "of elastic addresses" "$used" "$wanted"
    fi
    wanted=$(wanted_resources "$1" AWS::EC2::VPC)
    if ((wanted > 0)); then
        used=$(aws_in "$1" ec2 describe-vpcs --query 'length(Vpcs)' --output text 2>"$work/reason") || { unknown quotas "$(reason)"; return; }
        check_quota "$1" vpc L-F678F1CE "of VPCs" "$used" "$wanted"
    fi
}

# --- accounts, image, zones, models ----------------------------------------------------------------------------------

check_federation() {
    local found
    [[ $wants_issuer == yes ]] || return 0
    if found=$(outbound_issuer 2>"$work/reason"); then
        issuer=$found
        ok "web identity tokens, issued by $issuer"
    else
        stop federation "$(reason)" "$page_federation"
    fi
}

check_image() {
    local stack file name
    while read -r stack file; do
        name=$(value govcloud "${stack#*/}" ImageId)
        [[ $name == /* ]] || continue
        if aws_in govcloud ssm get-parameters --names "$name" --query 'Parameters[0].Value' --output text 2>"$work/reason" | grep -q '^ami-'; then
            ok "image $name"
        elif [[ -s $work/reason ]]; then
            unknown "image of $stack" "$(reason)"
        else
            stop "image of $stack" "the region has no parameter $name, which names the image" "$page_own, \"Prerequisites\""
        fi
    done < <(stacks "govcloud/(gateway|vpn)")
}

# check_zones: AWS offers endpoint services by zone, so both zones of a private path must have all three.
check_zones() {
    local stack file zone zones service
    while read -r stack file; do
        for service in bedrock-runtime bedrock sts; do
            if ! zones=$(aws_in commercial ec2 describe-vpc-endpoint-services --service-names "com.amazonaws.$COMMERCIAL_REGION.$service" \
                --query 'ServiceDetails[0].AvailabilityZones' --output text 2>"$work/reason"); then
                stop "endpoints of $stack" "$COMMERCIAL_REGION has no service $service: $(reason)" "$page_zones"
                continue 2
            fi
            for zone in "$(value commercial "${stack#*/}" ZoneA)" "$(value commercial "${stack#*/}" ZoneB)"; do
                if [[ " ${zones//$'\t'/ } " != *" $zone "* ]]; then
                    stop "endpoints of $stack" "zone $zone has no $service; these have: ${zones//$'\t'/ }" "$page_zones"
                    continue 3
                fi
            done
        done
        ok "endpoint services in both zones of $stack"
    done < <(stacks commercial/network)
}

# check_model: the smoke test's model, in every region that its inference profile reaches. A service control policy that denies one
# of these regions breaks the profile.
check_model() {
    local profile='' regions region model=$SMOKE_MODEL answer failed=0
    if [[ -z $model || $model == none ]]; then
        unknown "model access" "SMOKE_MODEL is ${SMOKE_MODEL:-missing}: no model was asked for"
        return
    fi
    regions=$COMMERCIAL_REGION
    profile=$(sed -n "s/.*\"$model\": *\"\([^\"]*\)\".*/\1/p" "$work"/policies 2>/dev/null | head -n1)
    if [[ -n $profile ]]; then
        if ! regions=$(aws_in commercial bedrock get-inference-profile --inference-profile-identifier "$profile" \
            --query 'models[].modelArn' --output text 2>"$work/reason"); then
            stop "model $model" "profile $profile: $(reason)" "$page_profiles"
            return
        fi
        regions=$(tr '\t' '\n' <<<"$regions" | cut -d: -f4)
    fi
    for region in $regions; do
        if ! answer=$(COMMERCIAL_REGION=$region aws_in commercial bedrock get-foundation-model-availability --model-id "$model" --output text \
            --query '[agreementAvailability.status, authorizationStatus, entitlementAvailability, regionAvailability]' 2>"$work/reason"); then
            if grep -q 'service control policy' "$work/reason"; then
                stop "model $model" "a service control policy denies region $region${profile:+, which profile $profile reaches}" "$page_scp"
            else
                stop "model $model" "$region: $(reason)" "$page_model_access"
            fi
            failed=1
            continue
        fi
        case $answer in
        AVAILABLE$'\t'AUTHORIZED$'\t'AVAILABLE$'\t'AVAILABLE) ;;
        *$'\t'NOT_AVAILABLE)
            stop "model $model" "$region does not have it" "$page_model_access"
            failed=1
            ;;
        *)
            stop "model $model" "no access in $region (agreement, authorization, entitlement, region: ${answer//$'\t'/, })" "$page_model_access"
            failed=1
            ;;
        esac
    done
    ((failed)) || ok "access to $model${profile:+ by $profile} in ${regions//$'\n'/, }"
}
