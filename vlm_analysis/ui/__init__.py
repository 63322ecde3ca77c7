"""The only Streamlit in the package: what pages share. Pages begin, gather input, make one library call and draw."""
