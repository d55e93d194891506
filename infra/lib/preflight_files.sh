# shellcheck shell=bash
# The parts of preflight that look at addresses, certificates and the gateway's name.

# --- addresses -------------------------------------------------------------------------------------------------------

# number ADDRESS: an IPv4 address as a number; fails if it is not one.
number() {
    local parts part total=0
    [[ $1 =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}$ ]] || return 1
    IFS=. read -ra parts <<<"$1"
    for part in "${parts[@]}"; do
        ((10#$part <= 255)) || return 1
        total=$((total * 256 + 10#$part))
    done
    printf '%d' "$total"
}

# overlap RANGE RANGE: whether two IPv4 ranges have an address in common.
overlap() {
    local a b bits=${1#*/}
    [[ ${2#*/} -ge $bits ]] || bits=${2#*/}
    a=$(number "${1%/*}") && b=$(number "${2%/*}") || return 1
    ((bits == 0 || a >> (32 - bits) == b >> (32 - bits)))
}

# check_addresses: the ranges of the plan's networks and of the clients must not overlap, or each side routes to itself.
check_addresses() {
    local stack file range key i j failed=0 names=() ranges=()
    while read -r stack file; do
        for key in VpcCidr ClientCidr InsideA1 InsideA2 InsideB1 InsideB2 RouterAddress; do
            grep -q "^  $key:" "$file" || continue
            # A reference names another stack's range.
            ! grep -q "^$key=.*@{" "$(parameters_of "${stack%%/*}" "${stack#*/}")" 2>/dev/null || continue
            range=$(value "${stack%%/*}" "${stack#*/}" "$key")
            [[ -n $range ]] || continue
            if ! number "${range%/*}" >/dev/null || ! [[ ${range#*/} =~ ^[0-9]+$ ]] || ((${range#*/} > 32)); then
                stop addresses "$stack: $key is $range, which is not an IPv4 range" "$page_own, \"Parameters\""
                failed=1
                continue
            fi
            names+=("$stack $key")
            ranges+=("$range")
        done
    done < <(grep -E '^(govcloud|commercial)/' "$work/before")
    for ((i = 0; i < ${#ranges[@]}; i++)); do
        for ((j = i + 1; j < ${#ranges[@]}; j++)); do
            # The clients may be in the gateway's own VPC.
            case "${names[i]}, ${names[j]}" in
            "govcloud/network VpcCidr, govcloud/gateway ClientCidr" | "govcloud/gateway ClientCidr, govcloud/network VpcCidr") continue ;;
            esac
            if overlap "${ranges[i]}" "${ranges[j]}"; then
                stop addresses "${names[i]} (${ranges[i]}) and ${names[j]} (${ranges[j]}) overlap" "$page_overlap"
                failed=1
            fi
        done
    done
    ((failed)) || ok "${#ranges[@]} address ranges, which do not overlap"
}

# --- certificates and secrets ----------------------------------------------------------------------------------------

# read_secret WHAT PARAMETER KEY-PARAMETER: reads the secret that a parameter of the gateway names into $work/secret, and sets
# $secret; fails, with a finding, if the machine could not read it.
read_secret() {
    local what=$1 stack=${GATEWAY#*/} kms
    secret=$(value govcloud "$stack" "$2")
    case $secret in
    "arn:aws-us-gov:secretsmanager:$GOVCLOUD_REGION:$GOVCLOUD_ACCOUNT:secret:bedrock/"*) ;;
    arn:*)
        stop "$what" "$2 is $secret; the endpoint's policy lets machines read only secrets of account $GOVCLOUD_ACCOUNT in $GOVCLOUD_REGION whose names begin with bedrock/" "$page_own, \"Certificates\""
        return 1
        ;;
    *)
        stop "$what" "$2 is $secret; want the ARN of a secret" "$page_own, \"Certificates\""
        return 1
        ;;
    esac
    if ! kms=$(aws_in govcloud secretsmanager describe-secret --secret-id "$secret" --query KmsKeyId --output text 2>"$work/reason"); then
        stop "$what" "$secret: $(reason)" "$page_own, \"Certificates\""
        return 1
    fi
    case $kms in
    None | alias/aws/secretsmanager | *:alias/aws/secretsmanager) ;;
    arn:*)
        if [[ $kms != "arn:aws-us-gov:kms:$GOVCLOUD_REGION:$GOVCLOUD_ACCOUNT:"* ]]; then
            if [[ $(value govcloud "$stack" "$3") != "$kms" ]]; then
                stop "$what" "$secret is encrypted with the key $kms of another account: name it in $3, and allow the machines' role in that key's policy" "$page_secret_key"
                return 1
            fi
            unknown "$what" "whether the policy of the key $kms, of another account, allows the machines' role"
        fi
        ;;&
    *)
        if [[ $kms != None && $kms != *alias/aws/secretsmanager && -z $(value govcloud "$stack" "$3") ]]; then
            stop "$what" "$secret is encrypted with the key $kms, which the machines may not use: set $3" "$page_secret_key"
            return 1
        fi
        ;;
    esac
    # The file may hold a private key: only its owner reads it, and it is removed at once.
    if ! (umask 077 && aws_in govcloud secretsmanager get-secret-value --secret-id "$secret" --query SecretString --output text >"$work/secret" 2>"$work/reason"); then
        rm -f "$work/secret"
        unknown "$what" "$secret cannot be read from here: $(reason)"
        return 1
    fi
}

# pem WHAT FILE FROM: a certificate in PEM that is valid now and in 30 days; fails, with a finding, if it is not.
pem() {
    local ends
    if ! grep -q -- '-----BEGIN CERTIFICATE-----' "$2" || ! openssl x509 -in "$2" -noout 2>/dev/null; then
        stop "$1" "$3 has no certificate in PEM" "$page_own, \"Certificates\""
        return 1
    fi
    ends=$(openssl x509 -in "$2" -noout -enddate | cut -d= -f2)
    if ! openssl x509 -in "$2" -noout -checkend 0 >/dev/null; then
        stop "$1" "the certificate of $3 expired at $ends" "$page_own, \"Certificates\""
        return 1
    fi
    # The machines refuse one that ends within a day.
    if ! openssl x509 -in "$2" -noout -checkend 86400 >/dev/null; then
        stop "$1" "the certificate of $3 expires at $ends, within a day" "$page_own, \"Certificates\""
        return 1
    fi
    if ! openssl verify -partial_chain -trusted "$2" "$2" >/dev/null 2>"$work/reason" && grep -q 'not yet valid' "$work/reason"; then
        stop "$1" "the certificate of $3 is not valid yet" "$page_own, \"Certificates\""
        return 1
    fi
}

# smoke_host: the host of SMOKE_URL; empty while the stack that names it is not deployed.
smoke_host() {
    local url
    url=$(resolve "$SMOKE_URL" 2>/dev/null) || return 0
    url=${url#*://}
    url=${url%%/*}
    printf '%s' "${url%%:*}"
}

check_listener_secret() {
    local host
    [[ -n $GATEWAY ]] || return 0
    if [[ -z $(value govcloud "${GATEWAY#*/}" CertificateSecretArn) ]]; then
        ok "listener: each machine makes a self-signed certificate"
        return
    fi
    read_secret listener CertificateSecretArn CertificateSecretKeyArn || return 0
    if pem listener "$work/secret" "$secret"; then
        if ! openssl pkey -in "$work/secret" -noout 2>/dev/null; then
            stop listener "$secret has no private key in PEM, or an encrypted one" "$page_own, \"Certificates\""
        elif [[ $(openssl pkey -in "$work/secret" -pubout 2>/dev/null) != "$(openssl x509 -in "$work/secret" -noout -pubkey)" ]]; then
            stop listener "the private key of $secret is not its first certificate's" "$page_own, \"Certificates\""
        else
            host=$(smoke_host)
            if [[ $SMOKE_URL == *'@{'* ]]; then
                stop listener "SMOKE_URL is the load balancer's own name, which no certificate of yours has: use a name of the certificate" "$page_own, \"Certificates\""
            elif [[ -n $host ]] && ! openssl x509 -in "$work/secret" -noout -checkhost "$host" | grep -q ' does match '; then
                stop listener "the certificate of $secret does not name $host, the host of SMOKE_URL" "$page_own, \"Certificates\""
            else
                ok "listener: certificate and key of $secret"
            fi
        fi
    fi
    rm -f "$work/secret"
}

check_client_ca() {
    [[ -n $GATEWAY && -n $(value govcloud "${GATEWAY#*/}" ClientCaSecretArn) ]] || return 0
    read_secret "clients' CA" ClientCaSecretArn ClientCaSecretKeyArn || return 0
    if pem "clients' CA" "$work/secret" "$secret"; then
        if grep -q 'PRIVATE KEY' "$work/secret"; then
            stop "clients' CA" "$secret has a private key; the machines need only the certificate" "$page_own, \"Certificates\""
        elif ! openssl x509 -in "$work/secret" -noout -ext basicConstraints 2>/dev/null | grep -q 'CA:TRUE'; then
            stop "clients' CA" "the certificate of $secret is not a CA's" "$page_own, \"Certificates\""
        else
            ok "clients' CA: $secret"
        fi
    fi
    rm -f "$work/secret"
}

check_trust_anchor() {
    local stack file
    while read -r stack file; do
        (umask 077 && value commercial "${stack#*/}" TrustAnchorCertificate >"$work/anchor")
        [[ -s $work/anchor ]] || continue
        pem "trust anchor" "$work/anchor" "$stack TrustAnchorCertificate" || continue
        if ! openssl x509 -in "$work/anchor" -noout -ext basicConstraints 2>/dev/null | grep -q 'CA:TRUE'; then
            stop "trust anchor" "TrustAnchorCertificate of $stack is not a CA's" "docs/credentials.md, \"IAM Roles Anywhere\""
        else
            ok "trust anchor of $stack"
        fi
    done < <(stacks commercial/identity)
}

# --- the gateway's address -------------------------------------------------------------------------------------------

check_address() {
    local url host ended outcome=0 self_signed config
    config=$(curl_config)
    if [[ -n $config ]]; then
        stop address "$config" "$page_own, \"The environment\""
        return
    fi
    host=$(smoke_host)
    if [[ $reached != *' govcloud '* || -z $GATEWAY ]]; then
        unknown address "GovCloud was not asked"
        return
    elif ! grep -q "^$GATEWAY"$'\t.*COMPLETE' "$work/states"; then
        unknown address "$GATEWAY is not deployed yet${host:+; then $host must lead to its load balancer (output NlbDnsName)}"
        return
    fi
    url=$(resolve "$SMOKE_URL") || exit 1
    self_signed=$(is_self_signed)
    refused_call "$url" >"$work/reason" || outcome=$?
    case "$outcome $ended" in
    "0 "*) ok "$host answers as the gateway does" ;;
    "2 6") stop address "$host has no DNS name here: $(remedy "$host")" "$page_own, \"Certificates\"" ;;
    # A deployment may be about to bring the certificate.
    "2 60") unknown address "$host: $(curl_said). Until this version's certificate is deployed this may be the former one; else $(remedy "$host")" ;;
    "2 "*) stop address "$host cannot be reached from here: $(curl_said). The load balancer is internal; run this where ClientCidr's network is" "$page_own, \"The environment\"" ;;
    *) stop address "$host does not answer as the gateway does: $(sed 's/^ *//' "$work/reason")" "$page_own, \"Rollback\"" ;;
    esac
}

# --- names -----------------------------------------------------------------------------------------------------------

# names FILE: the names that a template gives to what outlives its stack or is one in an account, a line TYPE NAME each.
names() {
    local region=$COMMERCIAL_REGION account=$COMMERCIAL_ACCOUNT
    [[ $1 == */govcloud/* ]] && region=$GOVCLOUD_REGION account=$GOVCLOUD_ACCOUNT
    awk -v environment="$environment" -v region="$region" -v account="$account" '
        /^    Type: / { type = $2 }
        /^      (TableName|LogGroupName|BucketName|RoleName|Name): !Sub "/ {
            if (type !~ /^AWS::(DynamoDB::Table|Logs::LogGroup|S3::Bucket|IAM::Role|SecretsManager::Secret)$/) next
            split($0, part, "\""); name = part[2]
            gsub(/\$\{Environment\}/, environment, name); gsub(/\$\{AWS::Region\}/, region, name); gsub(/\$\{AWS::AccountId\}/, account, name)
            if (name !~ /\$/) print type, name
        }' "$1"
}

# exists PARTITION TYPE NAME: whether the account has it already.
exists() {
    case $2 in
    AWS::DynamoDB::Table) aws_in "$1" dynamodb describe-table --table-name "$3" --query Table.TableName ;;
    AWS::Logs::LogGroup)
        aws_in "$1" logs describe-log-groups --log-group-name-prefix "$3" --output text --query 'logGroups[].[logGroupName]' | grep -qxF "$3"
        ;;
    AWS::S3::Bucket) aws_in "$1" s3api head-bucket --bucket "$3" ;;
    AWS::IAM::Role) aws_in "$1" iam get-role --role-name "$3" --query Role.RoleName ;;
    AWS::SecretsManager::Secret) aws_in "$1" secretsmanager describe-secret --secret-id "$3" --query Name ;;
    esac >/dev/null 2>&1
}

# wrong_identity: what commercial/identity is given that belongs to another environment or account, a line each. AWS accepts it, and
# the gateway's calls are refused.
wrong_identity() {
    local given wanted one arns
    given=$(value commercial identity GatewayRoleArn)
    wanted=arn:aws-us-gov:iam::$GOVCLOUD_ACCOUNT:role/bedrock-gateway-$environment
    [[ -z $given || $given == "$wanted" ]] || printf 'GatewayRoleArn of commercial/identity is %s; govcloud/gateway makes %s\n' "$given" "$wanted"
    IFS=, read -ra arns <<<"$(value commercial identity ModelArns)"
    for one in "${arns[@]}"; do
        IFS=: read -r _ _ _ _ given _ <<<"$one"
        [[ -z $given || $given == '*' || $given == "$COMMERCIAL_ACCOUNT" ]] ||
            printf 'ModelArns of commercial/identity has %s, of account %s; this environment has %s\n' "${one# }" "$given" "$COMMERCIAL_ACCOUNT"
    done
}

# check_names PARTITION: CloudFormation cannot create what exists. Tables, buckets, log groups and secrets outlive their stacks.
check_names() {
    local stack file type name count=0 failed=0
    while read -r stack file; do
        if grep -q "^$stack"$'\t.*COMPLETE' "$work/states"; then continue; fi
        while read -r type name; do
            count=$((count + 1))
            if exists "$1" "$type" "$name"; then
                stop names "$stack: $type $name exists already, and its stack does not: delete it, or import it" "$page_own, \"Removal\""
                failed=1
            fi
        done < <(names "$file")
    done < <(stacks "$1/[^ ]*")
    ((failed || count == 0)) || ok "$count names that are free"
    if [[ $1 == commercial ]]; then
        # An account has one provider for an issuer.
        if [[ -n $issuer ]] && ! grep -q $'^commercial/identity\t.*COMPLETE' "$work/states" && aws_in commercial iam get-open-id-connect-provider \
            --open-id-connect-provider-arn "arn:aws:iam::$COMMERCIAL_ACCOUNT:oidc-provider/$issuer" >/dev/null 2>&1; then
            stop names "commercial/identity: account $COMMERCIAL_ACCOUNT has a provider for $issuer already, perhaps of another environment" "$page_own, \"Prerequisites\""
        fi
        wrong_identity >"$work/wrong"
        while IFS= read -r name; do stop names "$name" "$page_own, \"The environment\""; done <"$work/wrong"
    fi
}
