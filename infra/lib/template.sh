# shellcheck shell=bash
# What a template declares: the names and constraints of its parameters, and when its outputs and resources exist.

# section TEMPLATE NAME: the keys of a top-level section, followed by `default` if the key's block has a Default.
section() {
    awk -v wanted="$2:" '
        function flush() { if (key != "") print key, has; key = "" }
        { sub(/\r$/, "") }
        /^[A-Za-z]/ { flush(); inside = ($1 == wanted); next }
        inside && /^  [A-Za-z0-9]+:/ { flush(); key = $1; sub(/:.*/, "", key); has = "" }
        inside && key != "" && /(^    |[{,] *)Default:/ { has = "default" }
        END { flush() }' "$1"
}

# constraints TEMPLATE: what a template says of its parameters' values, a line KEY WHAT TEXT each; WHAT is pattern, values, want, type
# or default.
constraints() {
    awk '
        function unquoted(text) {
            sub(/^ */, "", text); sub(/ *$/, "", text)
            if (text ~ /^".*"$/) { text = substr(text, 2, length(text) - 2); gsub(/\\\\/, "\\", text); gsub(/\\"/, "\"", text) }
            else if (text ~ /^\047.*\047$/) text = substr(text, 2, length(text) - 2)
            return text
        }
        { sub(/\r$/, "") }
        /^[A-Za-z]/ { inside = ($1 == "Parameters:"); next }
        inside && /^  [A-Za-z0-9]+:/ {
            key = $1; sub(/:.*/, "", key)
            if (match($0, /[{,] *Default: *[^,}]*/)) {
                text = substr($0, RSTART, RLENGTH); sub(/^[{,] *Default: */, "", text)
                print key "\tdefault\t" unquoted(text)
            }
        }
        inside && /^    Type: / { print key "\ttype\t" $2 }
        inside && /^    (AllowedPattern|AllowedValues|ConstraintDescription|Default): / {
            what = $1 == "AllowedPattern:" ? "pattern" : $1 == "AllowedValues:" ? "values" : $1 == "Default:" ? "default" : "want"
            text = $0; sub(/^ *[A-Za-z]+: /, "", text)
            if (what == "values") { gsub(/[][",]/, " ", text); sub(/^ */, "", text); sub(/ *$/, "", text); gsub(/ +/, " ", text) }
            print key "\t" what "\t" unquoted(text)
        }' "$1"
}

# given TEMPLATE PARAMETERS KEY: a parameter's text in a file of KEY=VALUE lines, else its default; empty if there is none.
given() {
    local text=''
    if [[ -f $2 ]]; then text=$(sed -n "s/^$3=//p" "$2" | tr -d '\r'); fi
    if [[ -z $text ]]; then text=$(constraints "$1" | awk -F'\t' -v key="$3" '$1 == key && $2 == "default" { print $3 }'); fi
    printf '%s' "$text"
}

# truths TEMPLATE PARAMETERS: which of the template's conditions hold for a file of KEY=VALUE lines, a line NAME TRUTH HOW each. TRUTH
# is yes, no, or ? where it depends on the text of an output that is not known yet. HOW is what to give to make it true.
#
# A condition is one line of the functions Equals, Not, And, Or, Condition, Ref and Select; else it fails.
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference-conditions.html
truths() {
    { constraints "$1" | awk -F'\t' '$2 == "default" { print "default\t" $1 "\t" $3 }'
        printf 'given\tEnvironment\t%s\n' "$environment"
        if [[ -f $2 ]]; then sed -n 's/^\([A-Za-z][A-Za-z0-9_]*\)=\(.*\)$/given\t\1\t\2/p' "$2" | tr -d '\r'; fi
        awk '/^[A-Za-z]/ { inside = /^Conditions:/; next } inside && !/^ *(#|$)/' "$1" | tr -d '\r' | sed 's/^/condition\t/'
    } | awk -F'\t' '
        function blanks() { while (substr(text, at, 1) == " ") at++ }
        function bad() { print name "\tbad\t" text; failed = 1; exit 1 }
        function taken(token) { blanks(); if (substr(text, at, length(token)) != token) return 0; at += length(token); return 1 }
        function need(token) { if (!taken(token)) bad() }
        function word(   from, quote) {
            blanks(); quote = substr(text, at, 1)
            if (quote == "\"" || quote == "\047") {
                from = ++at
                while (at <= length(text) && substr(text, at, 1) != quote) at++
                return substr(text, from, at++ - from)
            }
            from = at
            while (at <= length(text) && substr(text, at, 1) !~ /[][,{} ]/) at++
            if (at == from) bad()
            return substr(text, from, at - from)
        }
        # Sets the parameter that the value depends on.
        function value(   number, list, parts) {
            if (taken("!Select")) {
                need("["); number = word(); need(","); list = value(); need("]")
                if (split(list, parts, ",") <= number || list ~ /@[{]/) return list
                return parts[number + 1]
            }
            if (!taken("!Ref")) return word()
            parameter = word()
            if (parameter in parameters) return parameters[parameter]
            return "@{" parameter "}"
        }
        # 1, 0, or 2 for unknown. Sets `how` to what makes it true, or false if that is wanted.
        function truth(wanted,   all, one, found, hints, left, right, of, saved, place) {
            if (taken("!Not")) { need("["); found = truth(!wanted); need("]"); return found == 2 ? 2 : !found }
            if (taken("{")) { need("Condition:"); one = word(); need("}"); return named(one, wanted) }
            if (taken("!Condition")) return named(word(), wanted)
            if (taken("!Equals")) {
                parameter = ""
                need("["); left = value(); of = parameter; need(","); parameter = ""; right = value(); need("]")
                if (of == "") { of = parameter; found = left; left = right; right = found }
                if (of == "") how = "another template"
                else if (wanted) how = of "=" right
                else how = right == "" ? of : of " other than " right
                # A reference has a text, or the deployment stops there.
                if ((left ~ /@[{]/ && right != "") || right ~ /@[{]/) return 2
                return (left "") == (right "")
            }
            all = taken("!And")
            if (!all && !taken("!Or")) bad()
            need("["); hints = ""; found = all ? 1 : 0
            do {
                one = truth(wanted)
                if (one != wanted) hints = hints (hints == "" ? "" : all == wanted ? " and " : " or ") how
                if (one == !all) found = one
                else if (one == 2 && found == all) found = 2
            } while (taken(","))
            need("]"); how = hints
            return found
        }
        function named(which, wanted,   saved, place, found) {
            if (!(which in written)) bad()
            saved = text; place = at
            text = written[which]; at = 1
            found = truth(wanted); blanks()
            if (at <= length(text)) bad()
            text = saved; at = place
            return found
        }
        $1 == "default" { parameters[$2] = $3 }
        $1 == "given" { parameters[$2] = substr($0, length($1 $2) + 3) }
        $1 == "condition" {
            line = substr($0, length($1) + 2)
            if (line !~ /^  [A-Za-z0-9]+: /) { text = line; bad() }
            name = line; sub(/^  /, "", name); sub(/:.*/, "", name)
            sub(/^  [A-Za-z0-9]+: */, "", line); sub(/ +(#.*)?$/, "", line)
            names[++count] = name; written[name] = line
        }
        END {
            for (i = 1; i <= count && !failed; i++) {
                name = names[i]; text = name; how = ""
                found = named(name, 1)
                print name "\t" (found == 2 ? "?" : found ? "yes" : "no") "\t" how
            }
        }'
}

# condition_of TEMPLATE SECTION KEY: the condition of an output or a resource; empty if it always exists.
condition_of() {
    awk -v wanted="$2:" -v key="  $3:" '
        { sub(/\r$/, "") }
        /^[A-Za-z]/ { within = ($1 == wanted) }
        /^  [A-Za-z0-9]/ { inside = within && $0 == key }
        inside && /^    Condition: / { print $2; exit }' "$1"
}

# resources TEMPLATE PARAMETERS STACK: the resources that these parameters make, a line TYPE NAME each. Without a name of its own a resource
# has CloudFormation's. https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-name.html
resources() {
    truths "$1" "$2" >"$work/truths" || fail "$1: cannot read the condition $(cut -f1,3 "$work/truths" | tail -n1)"
    printf '\tyes\n' >>"$work/truths"
    tr -d '\r' <"$1" | awk -v stack="$3" -v environment="$environment" -v region="$region" -v account="$account" '
        function flush() {
            if (type != "" && truth[condition] != "no") print type, name == "" ? stack "-" key "-EXAMPLE" : name
            type = name = condition = ""
        }
        NR == FNR { split($0, part, "\t"); truth[part[1]] = part[2]; next }
        /^[A-Za-z]/ { flush(); within = ($1 == "Resources:"); next }
        !within { next }
        /^  [A-Za-z0-9]+:/ { flush(); key = $1; sub(/:.*/, "", key) }
        /^    Type: / { type = $2 }
        /^    Condition: / { condition = $2 }
        /^      (TableName|LogGroupName|BucketName|RoleName|UserName|GroupName|TopicName|AlarmName|DashboardName|AliasName|InstanceProfileName|ManagedPolicyName|Name): / {
            text = $0
            if (text ~ /: !Sub$/) getline text
            if (text ~ /!Ref AWS::StackName/) text = "\"${AWS::StackName}\""
            if (text ~ /!Ref/) next
            if (text ~ /"/) { sub(/^[^"]*"/, "", text); sub(/".*/, "", text) } else sub(/^[^:]*: */, "", text)
            gsub(/[$][{]Environment[}]/, environment, text); gsub(/[$][{]AWS::Region[}]/, region, text)
            gsub(/[$][{]AWS::AccountId[}]/, account, text); gsub(/[$][{]AWS::StackName[}]/, stack, text)
            gsub(/[$][{][A-Za-z:]*[}]/, "EXAMPLE", text)
            name = text
        }
        END { flush() }' "$work/truths" -
}

# absent TEMPLATE PARAMETERS SECTION KEY: what to give for an output or a resource that these parameters leave out; nothing if it exists.
absent() {
    local condition
    condition=$(condition_of "$1" "$3" "$4")
    [[ -n $condition ]] || return 0
    truths "$1" "$2" >"$work/truths" || fail "$1: cannot read the condition $(cut -f1,3 "$work/truths" | tail -n1)"
    awk -F'\t' -v name="$condition" '$1 == name && $2 == "no" { print $3 }' "$work/truths"
}

# nearest WORD NAMES: the name that takes the fewest changes of a letter, if they are few.
nearest() {
    tr -s ' \n' '\n' <<<"$2" | awk -v word="$1" '
        function distance(a, b,   i, j, n, m, d, cost, best) {
            n = length(a); m = length(b)
            for (i = 0; i <= n; i++) d[i, 0] = i
            for (j = 0; j <= m; j++) d[0, j] = j
            for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) {
                cost = substr(a, i, 1) == substr(b, j, 1) ? 0 : 1
                best = d[i - 1, j - 1] + cost
                if (d[i - 1, j] + 1 < best) best = d[i - 1, j] + 1
                if (d[i, j - 1] + 1 < best) best = d[i, j - 1] + 1
                # Two letters in the wrong order are one mistake.
                if (i > 1 && j > 1 && substr(a, i, 1) == substr(b, j - 1, 1) && substr(a, i - 1, 1) == substr(b, j, 1) && d[i - 2, j - 2] + 1 < best)
                    best = d[i - 2, j - 2] + 1
                d[i, j] = best
            }
            return d[n, m]
        }
        $0 != "" {
            found = distance(tolower(word), tolower($0))
            if (near == "" || found < least) { near = $0; least = found }
        }
        END { if (near != "" && least * 3 <= length(word)) print near }'
}

# unknown_name WORD NAMES: the end of a message about a name that does not exist: the nearest, and those that exist.
unknown_name() {
    local near names
    names=$(tr -s ' \n' ' ' <<<"$2")
    names=${names# }
    names=${names% }
    [[ -n $names ]] || { printf '; there are none'; return; }
    near=$(nearest "$1" "$names")
    if [[ -n $near ]]; then printf '; did you mean %s? There are: %s' "$near" "$names"; else printf '; there are: %s' "$names"; fi
}
