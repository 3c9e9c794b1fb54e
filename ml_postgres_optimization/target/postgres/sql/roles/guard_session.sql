GRANT EXECUTE ON FUNCTION {connect}(text, text) TO {tune};
