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
    local partition stack file reached arn
    read_plan "$1"
    say "preflight of $environment at $1"
    say "the environment's files"
    if (check_plan && printf '%s' "$wants_issuer" >"$work/wants") 2>"$work/reason"; then
        wants_issuer=$(cat "$work/wants")
        ok "plan, parameters and references"
        sed 's/^/  note  /' "$work/notes"
    else
        stop plan "$(sed -e 's/^deploy: //' -e '2,$s/^/        /' "$work/reason")" "$page_own, \"The environment\""
        preflight_end
    fi
    : >"$work/known"
    : >"$work/states"
    awk -v place="$place" '$1 == "config" { print place "/" $2 }' "$work/plan" | sort -u | while IFS= read -r file; do cat "$file"; done >"$work/policies"
    check_addresses
    reached=' '
    for partition in govcloud commercial; do
        say "$partition"
        if ! (check_account "$partition" && printf '%s' "$arn" >"$work/caller") 2>"$work/reason"; then
            stop credentials "$(reason)" "$page_own, \"The environment\""
            continue
        fi
        arn=$(cat "$work/caller")
        ok "credentials of account $(cut -d: -f5 <<<"$arn")"
        reached+="$partition "
        while read -r stack file; do
            # A call that fails must not end the other questions.
            if ! (look "$partition" "${stack#*/}" && printf '%s' "$status" >"$work/status") 2>"$work/reason"; then
                stop "$stack" "cannot read the stack: $(reason)" "$page_own, \"Prerequisites\""
                continue 2
            fi
            status=$(cat "$work/status")
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
# credentials, whose ARN is $arn. Policy simulation wants no session's ARN.
caller() {
    local name role
    service_role "$1"
    if ((${#role[@]})); then
        printf '%s' "${role[1]}"
        return
    fi
    case $arn in
    *:assumed-role/*)
        # The session's ARN lacks the role's path.
        name=${arn#*:assumed-role/}
        aws_in "$1" iam get-role --role-name "${name%%/*}" --query Role.Arn --output text
        ;;
    *) printf '%s' "$arn" ;;
    esac
}

# simulate PARTITION ARNS ACTIONS: prints `ACTION DECISION ALLOWED-BY-SCP RESOURCE` lines; ARNS and ACTIONS are separated by blanks. The
# decision of an action may be over all resources, and the resources' own decisions follow.
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_EvaluationResult.html
simulate() {
    local partition=$1 region=$COMMERCIAL_REGION actions arns
    [[ $partition == govcloud ]] && region=$GOVCLOUD_REGION
    read -ra arns <<<"$2"
    read -ra actions <<<"$3"
    aws_in "$partition" iam simulate-principal-policy --policy-source-arn "$caller" --action-names "${actions[@]}" --output text \
        --resource-arns "${arns[@]}" \
        --context-entries "ContextKeyName=aws:RequestedRegion,ContextKeyType=string,ContextKeyValues=$region" \
        --query "EvaluationResults[].[EvalActionName, EvalDecision, OrganizationsDecisionDetail.AllowedByOrganizations, \
            not_null(ResourceSpecificResults[?EvalResourceDecision!='allowed'].EvalResourceName | [0], EvalResourceName), \
            length(not_null(ResourceSpecificResults, \`[]\`)[?EvalResourceDecision!='allowed'])]"
}

# wanted_rights PARTITION: the calls that make the plan's resources with these parameters (rights.tsv), a line ACTION RESOURCE each.
wanted_rights() {
    local partition=$1 stack file region=$COMMERCIAL_REGION account=$COMMERCIAL_ACCOUNT name=aws zone role
    [[ $partition == govcloud ]] && region=$GOVCLOUD_REGION account=$GOVCLOUD_ACCOUNT name=aws-us-gov
    while read -r stack file; do
        zone=$(value "$partition" "${stack#*/}" HostedZoneId)
        resources "$file" "$(parameters_of "$partition" "${stack#*/}")" "$(name_of "${stack#*/}")" |
            awk -F'\t' -v stack="$(name_of "${stack#*/}")" -v zone="${zone:-*}" '
                NR == FNR { actions[$1] = $2; arn[$1] = $3; next }
                { split($0, part, " "); type = part[1]; count = split(actions[type], each, " "); text = arn[type]
                  gsub(/[{]name[}]/, part[2], text); gsub(/[{]stack[}]/, stack, text); gsub(/[{]zone[}]/, zone, text)
                  for (i = 1; i <= count; i++) print each[i], text
                  if (type == "AWS::IAM::Role") print "iam:PassRole", text }' "$infra/lib/rights.tsv" -
        # With a service role these are the deployer's rights, and the resources' its own.
        service_role "$partition"
        if ((${#role[@]} == 0)); then
            printf '%s arn:{partition}:cloudformation:{region}:{account}:stack/%s/*\n' \
                cloudformation:CreateChangeSet "$(name_of "${stack#*/}")" cloudformation:ExecuteChangeSet "$(name_of "${stack#*/}")"
        fi
    done < <(stacks "$partition/[^ ]*") | sort -u | sed -e "s/{partition}/$name/; s/{region}/$region/g; s/{account}/$account/g; s/{environment}/$environment/g" |
        sort -u
}

# check_rights PARTITION: simulates the calls that make the plan's resources, each on the resources that it makes. AWS's answer about
# all resources would be no for a policy that names them.
check_rights() {
    local partition=$1 region=$COMMERCIAL_REGION actions arns denied caller count=0
    [[ $partition == govcloud ]] && region=$GOVCLOUD_REGION
    if ! caller=$(caller "$partition" 2>"$work/reason"); then
        unknown rights "cannot find the caller: $(reason)"
        return
    fi
    wanted_rights "$partition" >"$work/rights"
    # Calls with the same resources are one question, and so are resources with the same calls.
    awk '{ actions[$2] = actions[$2] " " $1 } END { for (arn in actions) print actions[arn] "\t" arn }' "$work/rights" | sort |
        awk -F'\t' '{ arns[$1] = arns[$1] " " $2 } END { for (actions in arns) print arns[actions] "\t" actions }' | sort >"$work/questions"
    : >"$work/decisions"
    while IFS=$'\t' read -r arns actions; do
        if ! simulate "$partition" "$arns" "$actions" >>"$work/decisions" 2>"$work/reason"; then
            unknown rights "cannot simulate policies: $(reason)"
            return
        fi
        count=$((count + $(wc -w <<<"$actions")))
    done <"$work/questions"
    denied=$(awk -F'\t' '$3 == "False" && !said[$1]++ { printf " %s", $1 }' "$work/decisions")
    if [[ -n $denied ]]; then
        stop rights "a service control policy denies$denied in $region" "$page_scp"
        return
    fi
    denied=$(awk -F'\t' '($2 != "allowed" || $5 > 0) && !said[$1]++ { printf "%s %s on %s", separator, $1, $4; separator = "," }' "$work/decisions")
    if [[ -n $denied ]]; then
        stop rights "$caller may not$denied" "$page_simulate"
        return
    fi
    ok "rights of $caller for $count calls in $region, by simulation"
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

# check_zones: AWS offers endpoint services by zone, so both zones of a private path must have all of its endpoints.
check_zones() {
    local stack file zone zones service services
    while read -r stack file; do
        services=(bedrock-runtime bedrock sts)
        if [[ $(value commercial "${stack#*/}" AgentRuntime) == yes ]]; then services+=(bedrock-agent-runtime); fi
        for service in "${services[@]}"; do
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
