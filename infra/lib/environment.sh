# shellcheck shell=bash
# Settings, the AWS CLI in each partition, and the accounts that it reaches.

# pairs FILE: checks and prints its KEY=VALUE lines, without blank lines and comments.
pairs() {
    local number=0 line keys=" "
    while IFS= read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        line=${line%$'\r'}
        [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
        [[ $line =~ ^([A-Za-z][A-Za-z0-9_]*)= ]] || fail "$1:$number: want KEY=VALUE, found: $line"
        [[ $keys != *" ${BASH_REMATCH[1]} "* ]] || fail "$1:$number: ${BASH_REMATCH[1]} is given twice"
        keys+="${BASH_REMATCH[1]} "
        [[ ! $line =~ =[\"\'] ]] || fail "$1:$number: write the value of ${line%%=*} without quotes"
        [[ ! $line =~ [[:space:]]$ ]] || fail "$1:$number: the value of ${line%%=*} ends in a blank"
        printf '%s\n' "$line"
    done <"$1"
}

settings=(GOVCLOUD_PROFILE GOVCLOUD_REGION GOVCLOUD_ACCOUNT GOVCLOUD_SERVICE_ROLE COMMERCIAL_PROFILE COMMERCIAL_REGION COMMERCIAL_ACCOUNT
    COMMERCIAL_SERVICE_ROLE RELEASE BUCKET GATEWAY SMOKE_URL SMOKE_MODEL SMOKE_CURL_CONFIG)

read_settings() {
    local file=$place/settings line key
    [[ -f $file ]] || fail "$file: no such file; copy infra/environments/example"
    GOVCLOUD_PROFILE='' GOVCLOUD_REGION='' GOVCLOUD_ACCOUNT='' COMMERCIAL_PROFILE='' COMMERCIAL_REGION='' COMMERCIAL_ACCOUNT=''
    GOVCLOUD_SERVICE_ROLE='' COMMERCIAL_SERVICE_ROLE='' RELEASE='' BUCKET='' GATEWAY='' SMOKE_URL='' SMOKE_MODEL='' SMOKE_CURL_CONFIG=''
    pairs "$file" >"$work/settings"
    while IFS= read -r line; do
        key=${line%%=*}
        [[ " ${settings[*]} " == *" $key "* ]] || fail "$file: unknown setting $key$(unknown_name "$key" "${settings[*]}")"
        printf -v "$key" '%s' "${line#*=}"
    done <"$work/settings"
    for key in GOVCLOUD_REGION GOVCLOUD_ACCOUNT COMMERCIAL_REGION COMMERCIAL_ACCOUNT; do
        [[ -n ${!key} ]] || fail "$file: $key is missing"
    done
    [[ $GOVCLOUD_ACCOUNT =~ ^[0-9]{12}$ ]] || fail "$file: GOVCLOUD_ACCOUNT is $GOVCLOUD_ACCOUNT; want 12 digits"
    [[ $COMMERCIAL_ACCOUNT =~ ^[0-9]{12}$ ]] || fail "$file: COMMERCIAL_ACCOUNT is $COMMERCIAL_ACCOUNT; want 12 digits"
    # https://docs.aws.amazon.com/govcloud-us/latest/UserGuide/govcloud-differences.html has these two; the form of the others is in
    # https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html
    [[ $GOVCLOUD_REGION =~ ^us-gov-(west|east)-1$ ]] || fail "$file: GOVCLOUD_REGION is $GOVCLOUD_REGION, which is not a GovCloud region"
    [[ -z $GOVCLOUD_SERVICE_ROLE || $GOVCLOUD_SERVICE_ROLE == "arn:aws-us-gov:iam::$GOVCLOUD_ACCOUNT:role/"?* ]] ||
        fail "$file: GOVCLOUD_SERVICE_ROLE is $GOVCLOUD_SERVICE_ROLE; want arn:aws-us-gov:iam::$GOVCLOUD_ACCOUNT:role/NAME"
    [[ -z $COMMERCIAL_SERVICE_ROLE || $COMMERCIAL_SERVICE_ROLE == "arn:aws:iam::$COMMERCIAL_ACCOUNT:role/"?* ]] ||
        fail "$file: COMMERCIAL_SERVICE_ROLE is $COMMERCIAL_SERVICE_ROLE; want arn:aws:iam::$COMMERCIAL_ACCOUNT:role/NAME"
    [[ $COMMERCIAL_REGION != us-gov-* ]] || fail "$file: COMMERCIAL_REGION is $COMMERCIAL_REGION, which is a GovCloud region"
    [[ $COMMERCIAL_REGION =~ ^[a-z]{2}-(central|north|northeast|northwest|east|south|southeast|southwest|west)-[0-9]$ ]] ||
        fail "$file: COMMERCIAL_REGION is $COMMERCIAL_REGION, which is not a region"
}

# aws_in PARTITION ARGUMENT...: runs the AWS CLI with that partition's profile and region.
aws_in() {
    local profile=$COMMERCIAL_PROFILE region=$COMMERCIAL_REGION
    [[ $1 == govcloud ]] && profile=$GOVCLOUD_PROFILE region=$GOVCLOUD_REGION
    shift
    if [[ -n $profile ]]; then
        aws --profile "$profile" --region "$region" "$@"
    else
        aws --region "$region" "$@"
    fi
}

# service_role PARTITION: sets $role to the arguments that make CloudFormation use the partition's service role; none without one.
service_role() {
    role=()
    if [[ $1 == govcloud && -n $GOVCLOUD_SERVICE_ROLE ]]; then role=(--role-arn "$GOVCLOUD_SERVICE_ROLE"); fi
    if [[ $1 == commercial && -n $COMMERCIAL_SERVICE_ROLE ]]; then role=(--role-arn "$COMMERCIAL_SERVICE_ROLE"); fi
}

# check_account PARTITION: sets $arn to the caller. A profile of another account would create everything again there.
check_account() {
    local partition=$1 want
    case $partition in
    govcloud) want="arn:aws-us-gov:sts::$GOVCLOUD_ACCOUNT:" ;;
    *) want="arn:aws:sts::$COMMERCIAL_ACCOUNT:" ;;
    esac
    arn=''
    if ! arn=$(aws_in "$partition" sts get-caller-identity --query Arn --output text 2>"$work/error"); then
        ! grep -q InvalidClientTokenId "$work/error" ||
            fail "the credentials for $partition are not valid in its region: they have ended, or belong to another partition (profile ${partition^^}_PROFILE)"
        fail "no credentials for $partition: $(tail -n1 "$work/error")"
    fi
    [[ $arn == "$want"* || $arn == "${want/:sts:/:iam:}"* ]] || fail "the credentials for $partition belong to $arn; want ${want%:}"
}

# outbound_issuer: the issuer of the GovCloud account's web identity tokens, without https://.
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetOutboundWebIdentityFederationInfo.html
outbound_issuer() {
    local answer enabled issuer
    answer=$(aws_in govcloud iam get-outbound-web-identity-federation-info --output text \
        --query '[JwtVendingEnabled, IssuerIdentifier]' 2>"$work/error") || {
        ! grep -q FeatureDisabled "$work/error" ||
            fail "@{outbound-issuer}: account $GOVCLOUD_ACCOUNT issues no web identity tokens; run: aws${GOVCLOUD_PROFILE:+ --profile $GOVCLOUD_PROFILE} iam enable-outbound-web-identity-federation"
        fail "@{outbound-issuer}: $(tail -n1 "$work/error")"
    }
    read -r enabled issuer <<<"$answer"
    [[ $enabled == True ]] ||
        fail "@{outbound-issuer}: web identity tokens are disabled in account $GOVCLOUD_ACCOUNT; run: aws${GOVCLOUD_PROFILE:+ --profile $GOVCLOUD_PROFILE} iam enable-outbound-web-identity-federation"
    [[ $issuer == https://* ]] || fail "@{outbound-issuer}: want an issuer that begins with https://, found: $issuer"
    printf '%s' "${issuer#https://}"
}
