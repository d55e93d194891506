# shellcheck shell=bash
# The release archive and the rendered configuration, in the bucket.

digest() {
    if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

# check_release: fails unless RELEASE is a whole release archive for the machines' processor. A machine would refuse another one after
# minutes. Notes an archive of another release than the scripts and templates here.
check_release() {
    local where="$place/settings: RELEASE: $RELEASE" file
    [[ -f $RELEASE ]] || fail "$place/settings: RELEASE: no file $RELEASE (relative to $PWD)"
    tar -tzf "$RELEASE" >"$work/listed" 2>"$work/error" || fail "$where is not a whole tar.gz archive: $(head -n1 "$work/error")"
    for file in SHA256SUMS audit-collector bedrock_filter.wasm envoy infra/instance/install infra/vpn/install; do
        grep -qxF "./$file" "$work/listed" || fail "$where is not a release archive of this project: it has no $file"
    done
    # Bytes 19 and 20 of an ELF file name the processor, 62 for x86-64: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
    if ! grep -qs '^InstanceType=' "$(parameters_of "${GATEWAY%%/*}" "${GATEWAY#*/}")" &&
        [[ $( (tar -xzOf "$RELEASE" ./audit-collector 2>/dev/null || true) | head -c 20 | tail -c 2 | base64) != PgA= ]]; then
        fail "$where is not for x86-64, which the machines have; for others set InstanceType and ImageId"
    fi
    tar -xzOf "$RELEASE" ./SHA256SUMS | grep -E ' infra/(deploy$|lib/|templates/|(instance|vpn)/user-data$)' >"$work/sums" || true
    if [[ -s $work/sums ]] && ! (cd "$infra/.." && sha256sum --check --status "$work/sums" 2>/dev/null); then
        printf '%s is not the release of this infra/deploy: their scripts or templates differ. Use the infra/deploy of the archive\n' "$where" >>"$work/notes"
    fi
}

# upload KIND FILE: uploads it under its SHA-256, unless the bucket has that key already.
upload() {
    local kind=$1 file=$2 bucket sum key
    bucket=$(resolve "$BUCKET") || exit 1
    sum=$(digest "$file")
    key=$kind/$sum.tar.gz
    if aws_in govcloud s3api head-object --bucket "$bucket" --key "$key" >/dev/null 2>&1; then
        say "$kind: no change"
    else
        aws_in govcloud s3 cp --only-show-errors "$file" "s3://$bucket/$key" || fail "cannot upload $file to $bucket"
        say "$kind: uploaded as $key"
    fi
    printf '%s\t%s\n' "$kind.Key" "$key" "$kind.Sha256" "$sum" >>"$work/known"
}

# gateway ARGUMENT...: runs the operator's program, which a release archive has next to infra/.
gateway() {
    local program=${BEDROCK_GATEWAY_BIN:-$infra/../bedrock-gateway}
    [[ -x $program ]] || program=bedrock-gateway
    command -v "$program" >/dev/null ||
        fail "bedrock-gateway is neither in $(dirname "$infra") nor on PATH; set BEDROCK_GATEWAY_BIN, or run the release archive's infra/deploy"
    "$program" "$@"
}

# render POLICY PATH...: renders Envoy's bootstrap for a machine, packs it into a reproducible archive, and uploads that.
render() {
    local policy=$1 arguments=() path value
    shift
    for path in "$@"; do
        value=$(resolve "$path") || exit 1
        arguments+=(--path "$value")
    done
    rm -rf "$work/config" && mkdir "$work/config"
    value=$(resolve "$(cat "$place/$policy")") || exit 1
    printf '%s\n' "$value" >"$work/policy.json"
    gateway render envoy --policy "$work/policy.json" "${arguments[@]}" >"$work/config/envoy.json" 2>"$work/error" ||
        fail "$place/$policy: cannot render the policy: $(grep -v '^note: ' "$work/error")"
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work/config" -cf - envoy.json | gzip -n >"$work/config.tar.gz"
    upload config "$work/config.tar.gz"
}
