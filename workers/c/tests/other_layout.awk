# Writes layout.h with the digest `wrong` in place of its own, in both of its forms.
/RB_LAYOUT_DIGEST_HEX/ { print "#define RB_LAYOUT_DIGEST_HEX \"" wrong "\""; next }
/define RB_LAYOUT_DIGEST_BYTES/ {
    printf "#define RB_LAYOUT_DIGEST_BYTES"
    for (i = 1; i <= length(wrong); i += 2) printf " \"\\x%s\"", substr(wrong, i, 2)
    print ""
    skipping = 1
    next
}
skipping && /^ *"/ { next }
{ skipping = 0; print }
