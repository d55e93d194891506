# shellcheck shell=bash
# The details of Commercial's VPN connections, for GovCloud's machines.

# want WHAT PATTERN VALUE: fails if AWS's answer does not match. Never prints a key.
want() {
    [[ $3 =~ ^$2$ ]] && return 0
    [[ $1 == *key* ]] && fail "tunnels: $1 is missing, or not in AWS's format"
    fail "tunnels: $1 is ${3:-missing}"
}

# tunnels SECRET NAME=CONNECTION...: copies the details of Commercial's VPN connections, as JSON, into a secret of GovCloud
# (docs/vpn.md). Keys pass from one call to the next in a file that only its owner can read, never in an argument.
tunnels() {
    local secret word name id address='[0-9]+(\.[0-9]+){3}' state customer gateway local_asn='' remote_asn='' outside asn gateways='' \
        number tunnel inside key list out had
    secret=$(resolve "$1") || exit 1
    shift
    for word in "$@"; do
        name=${word%%=*}
        id=$(resolve "${word#*=}") || exit 1
        out=$(aws_in commercial ec2 describe-vpn-connections --vpn-connection-ids "$id" --output text \
            --query "VpnConnections[0].[State, CustomerGatewayId, VpnGatewayId]") || fail "tunnels: cannot describe $id"
        IFS=$'\t' read -r state customer gateway <<<"$out"
        want "$id" available "$state"
        want "the VPN gateway of $id" 'vgw-[0-9a-f]+' "$gateway"
        out=$(aws_in commercial ec2 describe-customer-gateways --customer-gateway-ids "$customer" --output text \
            --query "CustomerGateways[0].[BgpAsn, IpAddress]") || fail "tunnels: cannot describe $customer"
        IFS=$'\t' read -r asn outside <<<"$out"
        want "the AS number of $customer" '[0-9]+' "$asn"
        want "the address of $customer" "$address" "$outside"
        [[ -z $local_asn || $local_asn == "$asn" ]] || fail "tunnels: the AS numbers of the customer gateways differ: $local_asn and $asn ($customer)"
        local_asn=$asn
        out=$(aws_in commercial ec2 describe-vpn-gateways --vpn-gateway-ids "$gateway" --output text \
            --query "VpnGateways[0].AmazonSideAsn") || fail "tunnels: cannot describe $gateway"
        want "the AS number of $gateway" '[0-9]+' "$out"
        [[ -z $remote_asn || $remote_asn == "$out" ]] || fail "tunnels: the AS numbers of the VPN gateways differ: $remote_asn and $out ($gateway)"
        remote_asn=$out
        list='' number=0
        aws_in commercial ec2 describe-vpn-connections --vpn-connection-ids "$id" --output text \
            --query "VpnConnections[0].Options.TunnelOptions[].[OutsideIpAddress, TunnelInsideCidr, PreSharedKey]" >"$work/tunnels"
        while IFS=$'\t' read -r tunnel inside key; do
            number=$((number + 1))
            want "the address of tunnel $number of $id" "$address" "$tunnel"
            want "the inside range of tunnel $number of $id" '169\.254(\.[0-9]+){2}/30' "$inside"
            want "the pre-shared key of tunnel $number of $id" '[A-Za-z0-9._]{8,64}' "$key"
            list+="${list:+, }{ \"outside\": \"$tunnel\", \"inside\": \"$inside\", \"psk\": \"$key\" }"
            printf 'tunnels.%s%s\t%s\n' "${name^}" "$number" "$tunnel" >>"$work/known"
        done <"$work/tunnels"
        ((number == 2)) || fail "tunnels: $id has $number tunnels; want 2"
        gateways+="${gateways:+, }\"$name\": { \"outside\": \"$outside\", \"tunnels\": [$list] }"
    done
    printf '{ "local_asn": %s, "remote_asn": %s, "gateways": { %s } }' "$local_asn" "$remote_asn" "$gateways" >"$work/tunnels"
    if had=$(aws_in govcloud secretsmanager get-secret-value --secret-id "$secret" --query SecretString --output text 2>"$work/error") &&
        [[ $had == "$(cat "$work/tunnels")" ]]; then
        say "tunnels: no change"
    elif [[ -z $had ]] && ! grep -q ResourceNotFoundException "$work/error"; then
        fail "tunnels: $(tail -n1 "$work/error")"
    else
        ask "Write the tunnels of $# VPN connections into the secret ${secret##*:}?" || fail "the secret is left as it was"
        aws_in govcloud secretsmanager put-secret-value --secret-id "$secret" --secret-string "file://$work/tunnels" >/dev/null ||
            fail "tunnels: cannot write the secret"
        say "tunnels: $# connections, in ${secret##*:}"
    fi
    rm -f "$work/tunnels"
}
